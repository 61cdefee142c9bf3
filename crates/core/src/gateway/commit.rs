//! The commit: all parts are recorded, and the store makes the object. Or a single put has made it, and only the record changes.
//!
//! The commit lease in the record allows one committer at a time, which renews it while the store works. Whatever the
//! store answers, the object decides: its metadata contains the upload id, so HEAD shows whether a commit succeeded whose
//! response was lost.

mod attempt;
mod lease;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval_at};

use self::{
    attempt::{Attempt, NotMade},
    lease::Suspension,
};
use super::{
    digest::received,
    drain::Drain,
    object_records::Verified,
    records::{Fence, Records},
    recovery::inspect::Inspector,
    refusal::{aborted, missing_parts, not_own, nothing_left, replaced, state_lost, wrong_phase},
    storage::Storages,
};
use crate::{
    blobs::{COMMIT_TIMEOUT, contradiction},
    call,
    error::{Error, Kind, Reason, Result},
    meter::{Done, Meter},
    upload::{AbortReason, Denied, Digests, Event, Phase, Upload, WriterTag},
};

/// How often it is checked whether the lease of another committer has ended.
const JOIN_INTERVAL: Duration = Duration::from_millis(200);

/// How often the store is asked for the object meanwhile: a committer that died may have made it.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The largest difference between the clocks of two replicas. A committer stops this long before its lease ends by its
/// own clock.
const CLOCK_MARGIN: Duration = Duration::from_secs(30);

/// What makes the object of a finished upload.
#[derive(Debug)]
pub(super) enum Content {
    /// All recorded parts.
    Parts {
        /// Their total size in bytes.
        file_size: u64,
        /// The digests of a file whose bytes were not all received.
        proven: Digests,
    },
    /// A single put has made it.
    Put(Box<Verified>),
}

/// Commits uploads.
#[derive(Debug)]
pub(super) struct Commits {
    pub(super) records: Arc<Records>,
    pub(super) storages: Storages,
    pub(super) inspector: Arc<Inspector>,
    pub(super) drain: Arc<Drain>,
    /// How long a commit lease lasts.
    pub(super) lease: Duration,
    pub(super) meter: Arc<dyn Meter>,
}

// === impl Commits ===

impl Commits {
    /// Makes the object of an upload, and verifies it. Continues if its caller is cancelled.
    ///
    /// # Errors
    /// `FailedPrecondition` with `Incomplete` if parts are missing: the upload is OPEN again. `FailedPrecondition` with
    /// `PartReplaced` or `SessionLost` if two observations agree that the store has other parts than were recorded: the
    /// upload is ABORTED. After `Unavailable` it stays COMMITTING, and the next stream that opens it joins the commit.
    pub(super) async fn commit(
        self: &Arc<Self>,
        upload: &mut Upload,
        content: Content,
    ) -> Result<()> {
        let (commits, mut own) = (Arc::clone(self), upload.clone());
        let running = tokio::spawn(call::propagate(async move {
            let begun = Instant::now();
            let committed = match content {
                Content::Parts { file_size, proven } => {
                    Box::pin(commits.run(&mut own, file_size, proven)).await
                }
                Content::Put(verified) => commits.record(&mut own, *verified).await,
            };
            commits.meter.note(Done::Committed {
                result: &committed,
                took: begun.elapsed(),
            });
            (own, committed)
        }));
        let (after, committed) = running
            .await
            .map_err(|error| Error::internal("commit an upload", error))?;
        *upload = after;
        committed
    }

    /// Records the object of a single put. No lease is needed: a put never replaces an object, and of two writers with the same
    /// bytes the record has only one.
    async fn record(&self, upload: &mut Upload, verified: Verified) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        let complete = self
            .records
            .complete(upload, &storage, verified, Fence::Writer);
        complete.await
    }

    async fn run(&self, upload: &mut Upload, file_size: u64, proven: Digests) -> Result<()> {
        let now = self.records.now();
        // A request of an earlier attempt whose response was lost can still run in the store. Until it is over, a missing
        // session does not mean a lost one.
        let earlier = upload.evidence.commit_runs_until;
        let earlier = earlier.filter(|until| *until > now);
        let lease = self.new_lease(WriterTag::random());
        let start = Event::CommitStarted {
            lease,
            now,
            file_size,
            runs_until: self.runs_until(&lease),
        };
        match self.records.transition(upload, &start, Fence::Writer).await {
            // Another caller found the object first, and it is made of the parts that this writer has recorded.
            Err(_) if upload.phase == Phase::Complete && upload.committed_size() == file_size => {
                return Ok(());
            }
            started => started?,
        }
        if upload.parts.committed_size() != file_size {
            self.records
                .transition(upload, &Event::CommitReopened, Fence::Writer)
                .await?;
            let is_recorded = |number| upload.parts.get(number).is_some();
            return Err(missing_parts(upload, file_size, is_recorded));
        }
        let storage = self.storages.get(&upload.storage_id)?;
        let digests = match received(upload) {
            Ok(digests) => digests.or(Digests {
                crc64nvme: proven.crc64nvme.or(upload.parts.crc64nvme(file_size)),
                ..proven
            }),
            Err(error) if error.kind() == Kind::DataLoss => {
                return Err(self.inspector.refuse(upload, error).await);
            }
            Err(error) => return Err(error),
        };
        let attempt = Attempt::new(&storage, upload, digests);
        // List, commit and HEAD are retried as one operation, because each step depends on the one before.
        let making = storage.retry.run_whole(|| attempt.make_object());
        let outcome = tokio::select! {
            outcome = making => outcome,
            error = self.hold_lease(upload.clone(), lease.holder) => Err(error),
            error = self.drain.commits_end() => Err(error),
        };
        let (is_unanswered, is_acknowledged) = (attempt.is_unanswered(), attempt.is_acknowledged());
        let suspension = Suspension {
            holder: lease.holder,
            runs_until: self.runs_until_now(is_unanswered).max(earlier),
            is_acknowledged,
        };
        let error = match outcome {
            Ok(Ok(found)) => {
                let verified = Verified { found, digests };
                return self
                    .records
                    .complete(upload, &storage, verified, Fence::Writer)
                    .await;
            }
            Ok(Err(not_made)) => self.not_made(upload, not_made, suspension).await,
            Err(error) => error,
        };
        if error.reason() == Reason::WrongPhase && self.was_found(upload, file_size).await {
            return Ok(());
        }
        if upload.phase == Phase::Committing {
            self.suspend(upload, suspension).await;
        }
        Err(error)
    }

    /// Whether another caller has found the object while the store did not answer. Then `upload` becomes the COMPLETE
    /// record.
    async fn was_found(&self, upload: &mut Upload, file_size: u64) -> bool {
        let Ok(Some(current)) = self.records.find(&upload.id).await else {
            return false;
        };
        let is_own = current.writer == upload.writer && current.committed_size() == file_size;
        if is_own && current.phase == Phase::Complete {
            *upload = current;
            return true;
        }
        false
    }

    /// The error of a commit without an object. Aborts the upload if two observations agree.
    async fn not_made(
        &self,
        upload: &mut Upload,
        not_made: NotMade,
        suspension: Suspension,
    ) -> Error {
        let (denied, why) = match not_made {
            NotMade::Different(difference) => (Denied::Object, not_own(difference)),
            NotMade::Denied(_) if suspension.runs_until.is_some() => return contradiction(),
            NotMade::Denied(denied)
                if suspension.is_acknowledged || upload.evidence.is_acknowledged =>
            {
                tracing::warn!(upload_id = %upload.id, ?denied, "the store acknowledged the commit and denies the object");
                return contradiction();
            }
            NotMade::Denied(Denied::Parts) => (
                Denied::Parts,
                replaced("the store does not accept the recorded parts"),
            ),
            NotMade::Denied(denied) => (denied, nothing_left()),
        };
        self.deny(upload, denied, why).await
    }

    async fn deny(&self, upload: &mut Upload, denied: Denied, why: Error) -> Error {
        // The lease may have been renewed since the record was read.
        match self.records.find(&upload.id).await {
            Ok(Some(current)) if current.writer == upload.writer => *upload = current,
            Ok(_) => return state_lost(),
            Err(error) => return error,
        }
        self.inspector.refuse_denied(upload, denied, why).await
    }

    /// Waits for the commit of another committer, and commits if its lease ends.
    pub(super) async fn join(self: &Arc<Self>, mut upload: Upload) -> Result<Upload> {
        if upload.phase == Phase::Committing && self.find_made(&mut upload).await? {
            return Ok(upload);
        }
        let id = upload.id.clone();
        let mut watch = self.records.watch(&id);
        let mut looks = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        loop {
            match (upload.phase, upload.lease) {
                (Phase::Complete, _) => return Ok(upload),
                (Phase::Committing, Some(lease)) if lease.until > self.records.now() => {}
                (Phase::Committing, _) => {
                    // What is watched is only the summary; the commit needs the parts.
                    upload = self.records.find(&id).await?.ok_or_else(state_lost)?;
                    let committed_size = upload.parts.committed_size();
                    let file_size = upload.file.file_size.unwrap_or(committed_size);
                    let content = Content::Parts {
                        file_size,
                        proven: Digests::default(),
                    };
                    match self.commit(&mut upload, content).await {
                        Ok(()) => return Ok(upload),
                        // Another committer was faster.
                        Err(error) if error.reason() == Reason::WrongPhase => {}
                        Err(error) => return Err(error),
                    }
                }
                (Phase::Open | Phase::Aborted | Phase::Deleting, _) => {
                    return Err(commit_failed(&upload));
                }
            }
            tokio::select! {
                _ = looks.tick() => {
                    if upload.phase == Phase::Committing && self.find_made(&mut upload).await? {
                        return Ok(upload);
                    }
                }
                () = tokio::time::sleep(JOIN_INTERVAL) => {}
                found = watch.next() => {
                    let found = found?.ok_or_else(state_lost)?;
                    upload = Upload::clone(&found);
                }
                error = self.drain.begun() => return Err(error),
            }
        }
    }

    /// Ends an upload that has been COMMITTING for too long: COMPLETE if its object is in the store, ABORTED if two
    /// observations agree that it is not.
    ///
    /// # Errors
    /// `Unavailable` after the first observation, and while a commit can still run in the store.
    pub(super) async fn end(&self, upload: &mut Upload) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        let error = match storage.store.head(&upload.object_key).await? {
            Some(found) => match self.inspector.verify(&storage, upload, found).await? {
                Ok(verified) => {
                    return self
                        .records
                        .complete(upload, &storage, verified, Fence::None)
                        .await;
                }
                Err(difference) => self.deny(upload, Denied::Object, not_own(difference)).await,
            },
            None => {
                let runs_until = upload.evidence.commit_runs_until;
                if runs_until.is_some_and(|until| until > self.records.now()) {
                    return Err(contradiction());
                }
                self.inspector
                    .end_denied(upload, Denied::NoObject, AbortReason::CommitFailed)
                    .await?;
                return Ok(());
            }
        };
        if upload.phase == Phase::Aborted {
            return Ok(());
        }
        Err(error)
    }

    /// Records the object of a committer that may have made it without recording it. If the object is different, the
    /// committer rejects it. `upload` may be a summary: its parts are read only if there is an object to compare.
    async fn find_made(&self, upload: &mut Upload) -> Result<bool> {
        let storage = self.storages.get(&upload.storage_id)?;
        let key = upload.object_key.clone();
        let Some(found) = storage.store.head(&key).await? else {
            return Ok(false);
        };
        *upload = self
            .records
            .find(&upload.id)
            .await?
            .ok_or_else(state_lost)?;
        if upload.phase != Phase::Committing {
            return Ok(upload.phase == Phase::Complete);
        }
        let verified = self.inspector.verify(&storage, upload, found).await?;
        let (Ok(mut verified), Ok(digests)) = (verified, received(upload)) else {
            return Ok(false);
        };
        verified.digests = digests.or(verified.digests);
        self.records
            .complete(upload, &storage, verified, Fence::None)
            .await?;
        Ok(true)
    }
}

/// The error of a caller that joined a commit which failed.
fn commit_failed(upload: &Upload) -> Error {
    match upload.phase {
        Phase::Aborted => aborted(upload.abort_reason),
        phase => wrong_phase(phase),
    }
}
