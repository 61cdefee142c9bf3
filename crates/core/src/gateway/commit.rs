//! The commit: all parts are recorded, and the store makes the object.
//!
//! The commit lease in the record allows one committer at a time. Whatever the store answers, the object decides: its
//! metadata contains the upload id, so HEAD shows whether a commit succeeded whose response was lost.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::{
    digest::received_md5,
    drain::Drain,
    records::{Fence, Records},
    recovery::{
        inspect::Inspector,
        session::{new_object, store_session},
    },
    refusal::{missing_parts, not_own, replaced, session_lost, state_lost},
    storage::{Storage, Storages},
};
use crate::{
    blobs::{Commit, OPERATION_TIMEOUT, StoredObject, StoredPart},
    error::{Error, Kind, Reason, Result},
    retry::Retry,
    upload::{
        Applied, Capabilities, Event, Lease, Md5, Object, Phase, Timestamp, Upload, WriterTag,
        object::{Expected, Verdict, verify},
    },
};

/// How often the record is read while another committer commits.
const JOIN_INTERVAL: Duration = Duration::from_millis(200);

/// The largest difference between the clocks of two replicas. A committer stops this long before its lease ends by its
/// own clock.
const CLOCK_MARGIN: Duration = Duration::from_secs(30);

/// Commits uploads.
#[derive(Debug)]
pub(super) struct Commits {
    pub(super) records: Arc<Records>,
    pub(super) storages: Storages,
    pub(super) inspector: Arc<Inspector>,
    pub(super) drain: Arc<Drain>,
    /// Retries list, commit and HEAD as one operation, because each step depends on the one before.
    pub(super) retry: Arc<Retry>,
    /// How long a commit lease lasts.
    pub(super) lease: Duration,
}

// === impl Commits ===

impl Commits {
    /// Makes the object of an upload with all parts recorded, `file_size` bytes in total, and verifies it.
    ///
    /// # Errors
    /// `FailedPrecondition` with `Incomplete` if parts are missing: the upload is OPEN again. `FailedPrecondition` with
    /// `PartReplaced` or `SessionLost` if the store has other parts than were recorded: the upload is ABORTED. After
    /// `Unavailable` it stays COMMITTING, and the next stream that opens it joins the commit.
    pub(super) async fn commit(&self, upload: &mut Upload, file_size: u64) -> Result<()> {
        let now = self.records.now();
        // The request of an earlier attempt whose response was lost can still run in the store. Until it is over, a
        // missing session does not mean a lost one. The same holds for an earlier committer whose lease may not have
        // ended yet by its own clock.
        let earlier = upload.lease.filter(|_| upload.phase == Phase::Committing);
        let unanswered = AtomicBool::new(
            earlier.is_some_and(|earlier| earlier.until.plus(self.clock_margin()) > now),
        );
        let lease = Lease {
            holder: WriterTag::random(),
            until: now.plus(self.lease),
        };
        let start = Event::CommitStarted {
            lease,
            now,
            file_size,
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
        let md5 = match received_md5(upload) {
            Ok(md5) => md5,
            Err(error) if error.kind() == Kind::DataLoss => {
                return Err(self.inspector.refuse(upload, error).await);
            }
            Err(error) => return Err(error),
        };
        let attempt = || async {
            let made = self.make_object(&storage, upload, md5, &unanswered).await;
            made.map_err(|error| match error.reason() {
                Reason::SessionLost if unanswered.load(Ordering::Relaxed) => {
                    Error::store_unavailable(error)
                }
                _ => error,
            })
        };
        let limit = self.lease - self.clock_margin();
        let made = timeout(limit, self.retry.run(attempt)).await;
        match made.unwrap_or_else(|late| Err(Error::store_unavailable(late))) {
            Ok(stored) => {
                let object = Object {
                    bucket: storage.store.bucket().to_owned(),
                    key: upload.object_key.clone(),
                    etag: stored.etag,
                    size: stored.size,
                    md5,
                };
                self.records
                    .transition(upload, &Event::Committed { object }, Fence::Writer)
                    .await
            }
            Err(error) if error.kind() == Kind::FailedPrecondition => {
                Err(self.inspector.refuse(upload, error).await)
            }
            Err(error) => {
                let may_run = unanswered.load(Ordering::Relaxed);
                self.suspend(upload, lease.holder, may_run).await;
                Err(error)
            }
        }
    }

    /// Shortens the lease of a failed commit, so that another committer can continue: at once, or when the request that
    /// `may_run` in the store must be over. Best effort: otherwise the lease expires.
    async fn suspend(&self, upload: &Upload, holder: WriterTag, may_run: bool) {
        let mut suspended = upload.clone();
        let times = self.records.times();
        let until = if may_run {
            times.now.plus(OPERATION_TIMEOUT + self.clock_margin())
        } else {
            // Has ended by every clock.
            Timestamp(0)
        };
        let lease = Lease { holder, until };
        if suspended.apply(Event::CommitSuspended { lease }) != Ok(Applied::Changed) {
            return;
        }
        (suspended.updated_at, suspended.expires_at) = (times.now, times.expires_at);
        // A single try: the sender is waiting for its response.
        if let Err(error) = self.records.update_once(&suspended).await {
            tracing::debug!(upload_id = %upload.id, %error, "the lease of a failed commit is left to expire");
        }
    }

    /// At most a third of a lease, for short leases in tests or configurations.
    fn clock_margin(&self) -> Duration {
        CLOCK_MARGIN.min(self.lease / 3)
    }

    /// Waits for the commit of another committer, and commits if its lease ends.
    pub(super) async fn join(&self, mut upload: Upload) -> Result<Upload> {
        if upload.phase == Phase::Committing && self.find_made(&mut upload).await? {
            return Ok(upload);
        }
        loop {
            match (upload.phase, upload.lease) {
                (Phase::Complete, _) => return Ok(upload),
                (Phase::Committing, Some(lease)) if lease.until > self.records.now() => {}
                (Phase::Committing, _) => {
                    let committed_size = upload.parts.committed_size();
                    let file_size = upload.file.file_size.unwrap_or(committed_size);
                    match self.commit(&mut upload, file_size).await {
                        Ok(()) => return Ok(upload),
                        // Another committer was faster.
                        Err(error) if error.reason() == Reason::WrongPhase => {}
                        Err(error) => return Err(error),
                    }
                }
                (phase @ (Phase::Open | Phase::Aborted), _) => {
                    return Err(Error::precondition(
                        Reason::WrongPhase,
                        format!("the commit failed: the upload is {phase}"),
                    )
                    .with("phase", phase));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(JOIN_INTERVAL) => {}
                error = self.drain.begun() => return Err(error),
            }
            let id = upload.id.clone();
            let found = self.records.find(&id).await?;
            upload = found.ok_or_else(state_lost)?;
        }
    }

    /// Records the object of a committer that may have made it without recording it. If the object is not the upload's,
    /// the committer rejects it.
    async fn find_made(&self, upload: &mut Upload) -> Result<bool> {
        let storage = self.storages.get(&upload.storage_id)?;
        let key = upload.object_key.clone();
        let Some(found) = storage.store.head(&key).await? else {
            return Ok(false);
        };
        let verified = self.inspector.verify(&storage, upload, found).await;
        let (Ok(mut object), Ok(md5)) = (verified, received_md5(upload)) else {
            return Ok(false);
        };
        object.md5 = md5.or(object.md5);
        self.records
            .transition(upload, &Event::Committed { object }, Fence::None)
            .await?;
        Ok(true)
    }

    /// One attempt: compares the parts, commits them, and verifies the object.
    async fn make_object(
        &self,
        storage: &Storage,
        upload: &Upload,
        md5: Option<Md5>,
        unanswered: &AtomicBool,
    ) -> Result<StoredObject> {
        if upload.session.is_none() {
            return self
                .head_own_object(storage, upload)
                .await?
                .ok_or_else(|| session_lost("the object of a single put is missing"));
        }
        let session = store_session(upload);
        let parts: Vec<_> = upload.parts.iter_committed().cloned().collect();
        let Some(stored) = storage.single_try.list_parts(&session).await? else {
            return self
                .head_own_object(storage, upload)
                .await?
                .ok_or_else(|| session_lost("the store knows neither session nor object"));
        };
        // A store with implicit sessions (Azure) also lists the parts of a finished object. Another commit changes nothing.
        compare(upload, &stored, &storage.capabilities())?;
        let before = unanswered.swap(true, Ordering::Relaxed);
        let object = new_object(upload, md5);
        let committed = storage.single_try.commit(&session, &object, &parts).await;
        if !committed.as_ref().is_err_and(Error::is_retryable) {
            unanswered.store(before, Ordering::Relaxed);
        }
        match committed? {
            Commit::Done | Commit::SessionGone => self
                .head_own_object(storage, upload)
                .await?
                .ok_or_else(|| session_lost("the store knows neither session nor object")),
            Commit::PartReplaced | Commit::Refused => {
                Err(replaced("the store does not accept a recorded part"))
            }
        }
    }

    /// The upload's own object, if it exists.
    async fn head_own_object(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<StoredObject>> {
        let found = storage.single_try.head(&upload.object_key).await?;
        let verdict = verify(
            &Expected::of_record(upload),
            &storage.capabilities(),
            found.as_ref(),
            None,
        );
        match verdict {
            Verdict::Same | Verdict::Absent => Ok(found),
            Verdict::Different(difference) => Err(not_own(difference)),
            Verdict::Unknown => Err(Error::fault("commit: the size of the file is not recorded")),
        }
    }
}

/// Checks that the store has every recorded part.
fn compare(upload: &Upload, stored: &[StoredPart], capabilities: &Capabilities) -> Result<()> {
    let receipts: HashMap<&str, u64> = stored
        .iter()
        .map(|part| (part.receipt.as_str(), part.size))
        .collect();
    let numbers: HashMap<u32, &StoredPart> = stored
        .iter()
        .filter_map(|part| part.number.map(|number| (number, part)))
        .collect();
    for part in upload.parts.iter_committed() {
        let same_size = receipts
            .get(part.receipt.as_str())
            .is_some_and(|size| *size == part.size);
        // If the store keeps one part per number, it must be the recorded part.
        let replaced_by = numbers
            .get(&part.number)
            .filter(|stored| stored.receipt != part.receipt);
        if !same_size || (capabilities.one_part_per_number && replaced_by.is_some()) {
            return Err(replaced("the store has another part than the recorded one")
                .with("part", part.number));
        }
    }
    Ok(())
}
