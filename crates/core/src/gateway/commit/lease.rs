//! The commit lease: taken, renewed while the store works, and released.

use std::time::Duration;

use super::{CLOCK_MARGIN, COMMIT_TIMEOUT, Commits, Instant};
use crate::{
    error::Error,
    gateway::{records::Fence, refusal::wrong_phase},
    upload::{Applied, Event, Lease, Timestamp, Upload, WriterTag},
};

/// How a commit that stops leaves its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspension {
    pub(super) holder: WriterTag,
    /// Until when a commit that was not answered can run in the store.
    pub(super) runs_until: Option<Timestamp>,
    pub(super) is_acknowledged: bool,
}

// === impl Commits ===

impl Commits {
    pub(super) fn new_lease(&self, holder: WriterTag) -> Lease {
        let until = self.records.now().plus(self.lease);
        Lease { holder, until }
    }

    /// Until when a commit that is sent under `lease` can run in the store.
    pub(super) fn runs_until(&self, lease: &Lease) -> Timestamp {
        lease.until.plus(COMMIT_TIMEOUT)
    }

    /// Renews the lease until it is lost. Returns why.
    pub(super) async fn hold_lease(&self, mut upload: Upload, holder: WriterTag) -> Error {
        let mut ends = Instant::now() + self.lease - self.clock_margin();
        loop {
            tokio::time::sleep(self.lease / 3).await;
            let (lease, renewed) = (self.new_lease(holder), Instant::now());
            let event = Event::LeaseRenewed {
                lease,
                runs_until: self.runs_until(&lease),
            };
            let renewal = self.records.transition(&mut upload, &event, Fence::Writer);
            match tokio::time::timeout_at(ends, renewal).await {
                Ok(Ok(())) => ends = renewed + self.lease - self.clock_margin(),
                Ok(Err(error)) if error.is_retryable() && Instant::now() < ends => {}
                Ok(Err(error)) => return error,
                Err(late) => return Error::state_unavailable(late),
            }
        }
    }

    /// Until when a commit that was sent just now can run in the store. `None` if it was answered.
    pub(super) fn runs_until_now(&self, is_unanswered: bool) -> Option<Timestamp> {
        is_unanswered.then(|| self.records.now().plus(COMMIT_TIMEOUT))
    }

    /// Releases the lease of a failed commit, so that others can commit or delete the upload at once. Best effort:
    /// otherwise it expires.
    pub(super) async fn suspend(&self, upload: &Upload, suspension: Suspension) {
        let event = Event::CommitSuspended {
            // Has ended by every clock.
            lease: Lease {
                holder: suspension.holder,
                until: Timestamp(0),
            },
            runs_until: suspension.runs_until,
            is_acknowledged: suspension.is_acknowledged,
        };
        // A single try: the sender is waiting for its response. The lease may have been renewed since.
        let released = async {
            let Some(mut current) = self.records.find_summary_once(&upload.id).await? else {
                return Ok(());
            };
            match current.apply(event) {
                Ok(Applied::Changed) => self.records.update_once(&current).await.map(drop),
                Ok(Applied::Same) => Ok(()),
                Err(rejected) => Err(wrong_phase(rejected.0)),
            }
        };
        if let Err(error) = released.await {
            tracing::debug!(upload_id = %upload.id, %error, "the lease of a failed commit is left to expire");
        }
    }

    /// At most a third of a lease, for short leases in tests or configurations.
    fn clock_margin(&self) -> Duration {
        CLOCK_MARGIN.min(self.lease / 3)
    }
}
