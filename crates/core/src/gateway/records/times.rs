//! The times of a record: when it expires, and until when it is kept.

use std::time::Duration;

use super::Records;
use crate::{
    blobs::sign::sending_lifetime,
    error::Result,
    gateway::settings::Settings,
    state::{Times, removal_time},
    upload::{Cleanup, Phase, SINGLE_PUT_MAX, Timestamp, Upload},
};

/// The largest difference between the clocks of two replicas. What must have happened by all clocks is over by this time.
pub(in crate::gateway) const CLOCK_MARGIN: Duration = Duration::from_secs(60);

// === impl Records ===

impl Records {
    /// Sets the times of a record that changes. An ABORTED or DELETING upload stays in the state store until no signed
    /// request can reach the store: for twice the lifetime of a signed URL, once until the last URL expires, and once more
    /// for requests that started just before that; and until no commit can run in the store.
    pub(in crate::gateway) fn stamp(&self, upload: &mut Upload) {
        let Times { now, expires_at } = self.times();
        let changed_at = std::mem::replace(&mut upload.updated_at, now);
        let part_size = upload.plan.part_size().unwrap_or(0);
        let signed = 2 * sending_lifetime(part_size.max(SINGLE_PUT_MAX));
        upload.expires_at = match upload.phase {
            Phase::Open | Phase::Committing | Phase::Complete => expires_at,
            Phase::Aborted => {
                let commit_ended = upload.evidence.commit_runs_until.unwrap_or(now);
                expires_at.max(now.plus(signed)).max(commit_ended)
            }
            // Nothing was signed since it became COMPLETE.
            Phase::Deleting => changed_at.plus(signed),
        };
        upload.kept_until = self.kept_until(upload);
    }

    /// Until when the record of an ended upload is kept.
    pub(in crate::gateway) fn kept_until(&self, upload: &Upload) -> Option<Timestamp> {
        let Settings {
            keep_complete,
            keep_aborted,
            tombstone,
            ..
        } = *self.settings;
        match upload.phase {
            Phase::Open | Phase::Committing => None,
            Phase::Complete => {
                let kept = keep_complete.map(|kept| upload.updated_at.plus(kept));
                // The sweeper needs the record to delete the file.
                kept.map(|kept| kept.max(upload.file_expires_at.map_or(kept, removal_time)))
            }
            Phase::Aborted => Some(upload.expires_at.plus(keep_aborted)),
            Phase::Deleting if upload.cleanup == Cleanup::Done => {
                Some(upload.expires_at.max(self.now()).plus(tombstone))
            }
            // Until the sweeper has deleted the file.
            Phase::Deleting => Some(Timestamp::never()),
        }
    }

    /// Notes that the store has nothing of an ABORTED or DELETING upload any more. Whether that was the last time: no signed
    /// request and no late commit can reach the store after it.
    pub(in crate::gateway) async fn note_cleared(&self, upload: &mut Upload) -> Result<bool> {
        let is_last = upload.expires_at <= self.now().minus(CLOCK_MARGIN);
        upload.cleanup = match is_last {
            true => Cleanup::Done,
            false => Cleanup::AtExpiry,
        };
        upload.kept_until = self.kept_until(upload);
        // No other caller changes it, except one that has done the same.
        self.update(upload).await?;
        Ok(is_last)
    }

    pub(in crate::gateway) fn times(&self) -> Times {
        let now = self.now();
        Times {
            now,
            expires_at: now.plus(self.settings.upload_expiry),
        }
    }
}
