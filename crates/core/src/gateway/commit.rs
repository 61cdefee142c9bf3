//! The commit: all parts are recorded, and the store makes the object of them.
//!
//! One committer at a time, by a lease in the record. Whatever the store answers, the object itself decides: it carries
//! the upload's id, so that a commit whose answer was lost is found by looking at it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    Fence, Gateway, Storage, inspect::not_own, overlap::digest_so_far, part::new_object, state_lost,
};
use crate::{
    blobs::{Capabilities, Commit, OPERATION_TIMEOUT, Session, StoredObject, StoredPart},
    error::{Error, Kind, Reason, Result},
    upload::{
        Applied, Event, FileDigest, Lease, Md5, Object, Phase, Timestamp, Upload, WriterTag,
        object::{Expected, Strictness, Verdict, verify},
    },
};

/// How often a commit that somebody else has begun is looked at.
const JOIN_INTERVAL: Duration = Duration::from_millis(200);

/// How far apart the clocks of two replicas may be: a committer is done so long before its lease ends by its own clock.
const CLOCK_MARGIN: Duration = Duration::from_secs(30);

// === impl Gateway ===

impl Gateway {
    /// Makes the object of an upload whose parts are all recorded, `file_size` bytes together, and verifies it.
    ///
    /// # Errors
    /// `FailedPrecondition`: `Incomplete` when parts are missing (the upload is OPEN again); `PartReplaced` and
    /// `SessionLost` when the store has other parts than were recorded (the upload is ABORTED). `Unavailable` leaves it
    /// COMMITTING: whoever opens it next joins the commit.
    pub(super) async fn commit(&self, upload: &mut Upload, file_size: u64) -> Result<()> {
        let now = self.clock.now();
        // A commit whose answer was lost may still be at work: until it is over, what is not there is not lost. Also one of
        // somebody before, whose lease may not have ended yet by his own clock.
        let earlier = upload.lease.filter(|_| upload.phase == Phase::Committing);
        let unanswered = AtomicBool::new(
            earlier.is_some_and(|earlier| earlier.until.plus(self.clock_margin()) > now),
        );
        let lease = Lease {
            holder: WriterTag::random(),
            until: now.plus(self.settings.commit_lease),
        };
        let start = Event::CommitStarted {
            lease,
            now,
            file_size,
        };
        match self.transition(upload, &start, Fence::Writer).await {
            // Somebody found the object first, made of what this writer has recorded.
            Err(_) if upload.phase == Phase::Complete && upload.committed_size() == file_size => {
                return Ok(());
            }
            started => started?,
        }
        if upload.parts.committed_size() != file_size {
            self.transition(upload, &Event::CommitReopened, Fence::Writer)
                .await?;
            let is_recorded = |number| upload.parts.get(number).is_some();
            return Err(missing(upload, file_size, is_recorded));
        }
        let storage = self.storages.get(&upload.storage_id)?;
        let md5 = match received_md5(upload) {
            Ok(md5) => md5,
            Err(error) if error.kind() == Kind::DataLoss => {
                return Err(self.refuse(upload, error).await);
            }
            Err(error) => return Err(error),
        };
        let make = || async {
            let made = self.make_object(&storage, upload, md5, &unanswered).await;
            made.map_err(|error| match error.reason() {
                Reason::SessionLost if unanswered.load(Ordering::Relaxed) => {
                    Error::store_unavailable(error)
                }
                _ => error,
            })
        };
        let limit = self.settings.commit_lease - self.clock_margin();
        let made = timeout(limit, self.retry.run(make)).await;
        match made.unwrap_or_else(|late| Err(Error::store_unavailable(late))) {
            Ok(stored) => {
                let object = Object {
                    bucket: storage.store.bucket().to_owned(),
                    key: upload.object_key.clone(),
                    etag: stored.etag,
                    size: stored.size,
                    md5,
                };
                self.transition(upload, &Event::Committed { object }, Fence::Writer)
                    .await
            }
            Err(error) if error.kind() == Kind::FailedPrecondition => {
                Err(self.refuse(upload, error).await)
            }
            Err(error) => {
                let at_work = unanswered.load(Ordering::Relaxed);
                self.suspend(upload, lease.holder, at_work).await;
                Err(error)
            }
        }
    }

    /// Lets whoever comes next go on with a commit that is given up: at once, or when a request that may still be
    /// `at_work` in the store is over. Where it does not succeed, they wait for the end of the lease.
    async fn suspend(&self, upload: &Upload, holder: WriterTag, at_work: bool) {
        let mut suspended = upload.clone();
        let times = self.times();
        let until = if at_work {
            times.now.plus(OPERATION_TIMEOUT + self.clock_margin())
        } else {
            // By everybody's clock.
            Timestamp(0)
        };
        let lease = Lease { holder, until };
        if suspended.apply(Event::CommitSuspended { lease }) != Ok(Applied::Changed) {
            return;
        }
        (suspended.updated_at, suspended.expires_at) = (times.now, times.expires_at);
        // Without patience: the sender waits for its answer.
        if let Err(error) = self.state.update(&suspended, upload.writer).await {
            tracing::debug!(upload_id = %upload.id, %error, "the lease of a commit that failed goes on");
        }
    }

    /// A third of a lease at most, where tests or an operator want it short.
    fn clock_margin(&self) -> Duration {
        CLOCK_MARGIN.min(self.settings.commit_lease / 3)
    }

    /// Waits for a commit that somebody else has begun, and does it when they are gone.
    pub(super) async fn join_commit(&self, mut upload: Upload) -> Result<Upload> {
        if upload.phase == Phase::Committing && self.find_made(&mut upload).await? {
            return Ok(upload);
        }
        loop {
            match (upload.phase, upload.lease) {
                (Phase::Complete, _) => return Ok(upload),
                (Phase::Committing, Some(lease)) if lease.until > self.clock.now() => {}
                (Phase::Committing, _) => {
                    let committed_size = upload.parts.committed_size();
                    let file_size = upload.file.file_size.unwrap_or(committed_size);
                    match self.commit(&mut upload, file_size).await {
                        Ok(()) => return Ok(upload),
                        // Somebody else was quicker.
                        Err(error) if error.reason() == Reason::WrongPhase => {}
                        Err(error) => return Err(error),
                    }
                }
                (phase @ (Phase::Open | Phase::Aborted), _) => {
                    return Err(Error::precondition(
                        Reason::WrongPhase,
                        format!("the commit failed: it is {phase}"),
                    )
                    .with("phase", phase));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(JOIN_INTERVAL) => {}
                error = self.drained() => return Err(error),
            }
            let id = upload.id.clone();
            let found = self.retry.run(|| self.state.get(&id)).await?;
            upload = found.ok_or_else(state_lost)?;
        }
    }

    /// Records the object that a committer has made and perhaps did not live to record. One that is not as it should be
    /// is the committer's to refuse.
    async fn find_made(&self, upload: &mut Upload) -> Result<bool> {
        let storage = self.storages.get(&upload.storage_id)?;
        let key = upload.object_key.clone();
        let Some(found) = self.retry.run(|| storage.store.head(&key)).await? else {
            return Ok(false);
        };
        let verified = self.verify(&storage, upload, found).await;
        let (Ok(mut object), Ok(md5)) = (verified, received_md5(upload)) else {
            return Ok(false);
        };
        object.md5 = md5.or(object.md5);
        self.transition(upload, &Event::Committed { object }, Fence::None)
            .await?;
        Ok(true)
    }

    /// Ends an upload that can never become the object it was meant to be, and returns why.
    pub(super) async fn refuse(&self, upload: &mut Upload, why: Error) -> Error {
        if let Err(error) = self
            .transition(upload, &Event::Refused, Fence::Writer)
            .await
        {
            return error;
        }
        if let Err(error) = self.discard(upload).await {
            tracing::warn!(upload_id = %upload.id, error = %error, "a refused upload stays behind in the store");
        }
        why
    }

    /// One try: compare, commit, look.
    async fn make_object(
        &self,
        storage: &Storage,
        upload: &Upload,
        md5: Option<Md5>,
        unanswered: &AtomicBool,
    ) -> Result<StoredObject> {
        let Some(id) = &upload.session else {
            return self
                .head_own_object(storage, upload)
                .await?
                .ok_or_else(|| lost("the object of a single put is gone"));
        };
        let session = Session {
            key: &upload.object_key,
            id,
        };
        let parts: Vec<_> = upload.parts.iter_committed().cloned().collect();
        let Some(stored) = storage.store.list_parts(&session).await? else {
            return self
                .head_own_object(storage, upload)
                .await?
                .ok_or_else(|| lost("the store knows neither session nor object"));
        };
        // A store without sessions (Azure) lists the parts of a finished object, too: nothing to commit again.
        compare(upload, &stored, &storage.store.capabilities())?;
        let before = unanswered.swap(true, Ordering::Relaxed);
        let object = new_object(upload, md5);
        let committed = storage.store.commit(&session, &object, &parts).await;
        if !committed.as_ref().is_err_and(Error::is_retryable) {
            unanswered.store(before, Ordering::Relaxed);
        }
        match committed? {
            Commit::Done | Commit::SessionGone => self
                .head_own_object(storage, upload)
                .await?
                .ok_or_else(|| lost("the store knows neither session nor object")),
            Commit::PartReplaced => Err(replaced("the store refuses a part that was recorded")),
        }
    }

    /// The upload's own object, if it exists.
    async fn head_own_object(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<StoredObject>> {
        let found = storage.store.head(&upload.object_key).await?;
        let verdict = verify(
            &Expected::of_record(upload),
            &storage.store.capabilities(),
            found.as_ref(),
            None,
            Strictness::Commit,
        );
        match verdict {
            Verdict::Same | Verdict::Absent => Ok(found),
            Verdict::Different(difference) => Err(not_own(difference)),
            Verdict::Unknown => Err(Error::fault("commit: the size of the file is not recorded")),
        }
    }
}

/// The MD5 of the whole file, where it is known.
///
/// # Errors
/// `DataLoss` when it is not the promised one.
fn received_md5(upload: &Upload) -> Result<Option<Md5>> {
    let received = digest_so_far(upload)?.map(FileDigest::finish);
    match (upload.promised_md5(), received) {
        (Some(promised), Some(received)) if promised != received => {
            Err(digest_mismatch(promised, received))
        }
        _ => Ok(received),
    }
}

/// Every recorded part must be the one the store holds.
fn compare(upload: &Upload, stored: &[StoredPart], capabilities: &Capabilities) -> Result<()> {
    let receipts: std::collections::HashMap<&str, u64> = stored
        .iter()
        .map(|part| (part.receipt.as_str(), part.size))
        .collect();
    let numbers: std::collections::HashMap<u32, &StoredPart> = stored
        .iter()
        .filter_map(|part| part.number.map(|number| (number, part)))
        .collect();
    for part in upload.parts.iter_committed() {
        let same_size = receipts
            .get(part.receipt.as_str())
            .is_some_and(|size| *size == part.size);
        // Where the store keeps one part a number, it must be this one.
        let replaced_by = numbers
            .get(&part.number)
            .filter(|stored| stored.receipt != part.receipt);
        if !same_size || (capabilities.one_part_per_number && replaced_by.is_some()) {
            return Err(replaced("the store holds other bytes than were recorded")
                .with("part", part.number));
        }
    }
    Ok(())
}

/// The refusal of a file that is not the promised one.
pub(super) fn digest_mismatch(promised: Md5, received: Md5) -> Error {
    Error::new(
        Kind::DataLoss,
        Reason::DigestMismatch,
        "the file's MD5 is not the promised one",
    )
    .with("promised", promised)
    .with("received", received)
}

fn replaced(message: &str) -> Error {
    Error::precondition(Reason::PartReplaced, message)
}

fn lost(message: &str) -> Error {
    Error::precondition(Reason::SessionLost, message)
}

/// The refusal of a file of `file_size` bytes of which not every part is there.
pub(super) fn missing(upload: &Upload, file_size: u64, is_there: impl Fn(u32) -> bool) -> Error {
    /// So many missing parts are named; the rest is counted by whoever asks again.
    const NAMED: usize = 100;
    let missing: Vec<String> = (1..)
        .map_while(|number| upload.span(number).map(|span| (number, span)))
        // An empty file has one part, too.
        .take_while(|(number, span)| *number == 1 || span.offset < file_size)
        .filter(|(number, _)| !is_there(*number))
        .take(NAMED)
        .map(|(number, _)| number.to_string())
        .collect();
    Error::precondition(Reason::Incomplete, "parts are missing")
        .with("missing_parts", missing.join(","))
}
