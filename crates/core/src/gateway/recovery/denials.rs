//! Two observations before anything is destroyed.
//!
//! A negative answer of a store is noted in the record, and the caller gets a retryable error. Only when a later
//! observation agrees does the gateway refuse the upload. Replicated stores and proxies give wrong answers for a while.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::session::store_session;
use crate::{
    blobs::StoredPart,
    error::{Error, Kind, Reason, Result},
    gateway::{
        records::{Fence, Records},
        refusal::wrong_phase,
        storage::Storage,
    },
    state::Update,
    upload::{AbortReason, Capabilities, Denial, Denied, Event, Rejected, Upload},
};

/// When to retry after an upload has changed while the store was observed.
const OBSERVE_AGAIN: Duration = Duration::from_secs(1);

/// Notes what stores deny, and decides when it is believed.
#[derive(Debug)]
pub(in crate::gateway) struct Denials {
    records: Arc<Records>,
    /// How long after the first observation the second one counts.
    settle: Duration,
}

// === impl Denials ===

impl Denials {
    pub(in crate::gateway) fn new(records: Arc<Records>, settle: Duration) -> Self {
        Self { records, settle }
    }

    /// What the store denies about the session of an upload that has no object.
    pub(in crate::gateway) async fn denied(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<Denied>> {
        if upload.session.is_none() {
            return Ok(None);
        }
        Ok(match listed_parts(storage, upload).await? {
            None => Some(Denied::Session),
            Some(listed) if !has_parts(&storage.capabilities(), upload, &listed) => {
                Some(Denied::Parts)
            }
            Some(_) => None,
        })
    }

    /// Notes that the store denied something. Succeeds if an earlier observation, long enough ago, agrees: then the
    /// caller may act on it.
    ///
    /// # Errors
    /// `Unavailable`, with the delay after which a second observation counts; with `WriterActive` if the record has
    /// changed since it was read, so that the observation may be out of date.
    pub(in crate::gateway) async fn confirm(
        &self,
        upload: &mut Upload,
        denied: Denied,
    ) -> Result<()> {
        let now = self.records.now();
        let denial = Denial {
            denied,
            settles_at: now.plus(self.settle),
        };
        let known = upload.evidence.denial;
        if known.is_none_or(|known| known.denied != denied) {
            self.note(upload, denial).await?;
            tracing::warn!(upload_id = %upload.id, ?denied, "the store denies what it has acknowledged; it is observed again before anything is done");
        }
        let settles_at = upload.evidence.denial.unwrap_or(denial).settles_at;
        if settles_at <= now {
            return Ok(());
        }
        let wait = Duration::from_millis(settles_at.0 - now.0);
        Err(unsettled(denied).retry_after(wait))
    }

    async fn note(&self, upload: &mut Upload, denial: Denial) -> Result<()> {
        let mut changed = upload.clone();
        let applied = changed.apply(Event::Denied(denial));
        applied.map_err(|Rejected(phase)| wrong_phase(phase))?;
        match self.records.update(&changed).await? {
            Update::Updated(version) => {
                *upload = Upload { version, ..changed };
                Ok(())
            }
            Update::Conflict(_) | Update::Missing => {
                let message = "the upload changed while the store was observed; retry";
                let changed = Error::new(Kind::Unavailable, Reason::WriterActive, message);
                Err(changed.retry_after(OBSERVE_AGAIN))
            }
        }
    }

    /// Forgets what the store denied, because it has it again.
    pub(in crate::gateway) async fn undeny(&self, upload: &mut Upload) -> Result<()> {
        self.records
            .transition(upload, &Event::Undenied, Fence::None)
            .await
    }
}

/// The store's list of the parts in the session of an upload. `None` if it denies twice in a row that it knows the session:
/// no other call could contradict it while parts are missing.
pub(in crate::gateway) async fn listed_parts(
    storage: &Storage,
    upload: &Upload,
) -> Result<Option<Vec<StoredPart>>> {
    let session = store_session(upload);
    match storage.store.list_parts(&session).await? {
        None => storage.store.list_parts(&session).await,
        listed => Ok(listed),
    }
}

/// Whether the store lists every recorded part. If it keeps one part per number, the recorded part must be that one.
pub(in crate::gateway) fn has_parts(
    capabilities: &Capabilities,
    upload: &Upload,
    listed: &[StoredPart],
) -> bool {
    let number = |part: &StoredPart| part.number.filter(|_| capabilities.one_part_per_number);
    let listed: HashSet<(Option<u32>, &str, u64)> = listed
        .iter()
        .map(|part| (number(part), part.receipt.as_str(), part.size))
        .collect();
    upload.parts.iter_committed().all(|part| {
        let number = Some(part.number).filter(|_| capabilities.one_part_per_number);
        listed.contains(&(number, part.receipt.as_str(), part.size))
    })
}

/// The reason of an upload that is refused with `error`.
pub(in crate::gateway) fn abort_reason(error: &Error) -> AbortReason {
    match error.reason() {
        Reason::SessionLost => AbortReason::SessionLost,
        Reason::DigestMismatch => AbortReason::DigestMismatch,
        _ => AbortReason::PartReplaced,
    }
}

fn unsettled(denied: Denied) -> Error {
    let what = match denied {
        Denied::Session => "the session of the upload",
        Denied::Parts => "a recorded part",
        Denied::Object => "the object that was sent",
        Denied::NoObject => "the object",
    };
    Error::store_unavailable(format!(
        "the store denies that it has {what}; it is observed again"
    ))
}
