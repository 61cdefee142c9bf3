//! Finds which parts of an upload, and which object, the store has. What a client reports about parts that it put itself
//! is a claim: a claimed part is used only if the store lists it.
//!
//! The gateway lists the stored parts when a stream opens an upload that has claims, when a create returns an existing
//! upload, when it signs the commit, and when it completes a signed upload.

use std::{sync::Arc, time::Duration};

use super::{
    denials::{Denials, abort_reason, listed_parts},
    session::placed,
};
use crate::{
    blobs::{StoredObject, contradiction},
    error::{Error, Kind, Reason, Result},
    gateway::{
        object_records::Verified,
        records::{Fence, Records},
        refusal::{aborted, not_own, nothing_left, replaced, state_lost, taken_over, too_little},
        storage::{Storage, Storages},
    },
    upload::{
        AbortReason, Denied, Digests, Event, Part, Phase, Present, Upload, WriterTag,
        object::{Difference, Verdict, is_put_whole, verify},
    },
};

/// How many times an object is verified at most while other callers change its upload.
const MAX_CHECKS: usize = 5;

/// When a caller should retry if the upload changed during each check.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// Compares the store with records, and reconciles the records.
#[derive(Debug)]
pub(in crate::gateway) struct Inspector {
    records: Arc<Records>,
    storages: Storages,
    denials: Denials,
}

// === impl Inspector ===

impl Inspector {
    pub(in crate::gateway) fn new(
        records: Arc<Records>,
        storages: Storages,
        denials: Denials,
    ) -> Self {
        Self {
            records,
            storages,
            denials,
        }
    }

    /// The parts that the store has. `None` if it does not know the session.
    pub(in crate::gateway) async fn stored_parts(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<Present>> {
        let listed = listed_parts(storage, upload).await?;
        Ok(listed.map(|listed| Present::new(upload, &storage.capabilities(), &listed)))
    }

    /// Records the client's parts that follow the committed ones, so that a stream continues after them. If a client
    /// has committed the upload in the meantime, it becomes COMPLETE. If clients chose the part size, the plan that their
    /// parts show is fixed now.
    pub(in crate::gateway) async fn adopt(
        &self,
        upload: &mut Upload,
        writer: WriterTag,
    ) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        if upload.session.is_none() {
            if storage.capabilities().creates_sessions {
                return Ok(());
            }
            // No request creates the store's session. The record gets one nevertheless: without a session the upload
            // would be treated as a single put.
            let integrity = storage.session_integrity(upload).await;
            let started = storage.begin_session(upload, integrity).await?;
            self.records
                .transition(upload, &started, Fence::Writer)
                .await?;
        }
        let stored = self.stored_parts(&storage, upload).await?;
        let has_all_parts = |present: &Present| present.is_whole(upload.file.file_size);
        if stored.as_ref().is_none_or(has_all_parts)
            && self.find_committed(&storage, upload).await?
        {
            return Ok(());
        }
        let Some(mut present) = stored else {
            return self.forget_session(upload).await;
        };
        present.take_unproven(upload);
        let mut stored = present.parts;
        if upload.is_cut_by_client {
            let shown = (!stored.is_empty()).then_some(present.plan);
            self.records
                .transition(upload, &Event::PlanFixed { shown }, Fence::Writer)
                .await?;
        }
        let first = upload.parts.committed() + 1;
        let next: Vec<Part> = (first..)
            .map_while(|number| stored.remove(&number))
            .collect();
        if next.is_empty() {
            return Ok(());
        }
        self.records
            .record_parts(&upload.id, upload.version, writer, &next)
            .await?;
        upload.parts.extend(next);
        Ok(())
    }

    /// Looks for the object, which a client may have made. If this upload made it, the upload becomes COMPLETE.
    ///
    /// # Errors
    /// `Unavailable` after the first observation of an object that this upload did not make, and if other callers changed
    /// the upload during each check. `FailedPrecondition` or `DataLoss` after the second observation: the upload is
    /// ABORTED.
    pub(in crate::gateway) async fn find_committed(
        &self,
        storage: &Storage,
        upload: &mut Upload,
    ) -> Result<bool> {
        let (id, key) = (upload.id.clone(), upload.object_key.clone());
        for _ in 0..MAX_CHECKS {
            let Some(found) = storage.store.head(&key).await? else {
                return Ok(false);
            };
            // Parts are recorded or claimed before an object is made of them. A record that is read after HEAD therefore
            // has the parts of the object; `upload` may be older.
            let current = self.records.find(&id).await?;
            *upload = current.ok_or_else(|| Error::upload_not_found(&id))?;
            // An ended upload has no parts any more with which the object could be compared.
            match upload.phase {
                Phase::Complete => return Ok(true),
                Phase::Aborted => return Err(aborted(upload.abort_reason)),
                Phase::Open | Phase::Committing | Phase::Deleting => {}
            }
            let error = match self.verify(storage, upload, found).await? {
                Ok(verified) => {
                    self.records
                        .complete(upload, storage, verified, Fence::None)
                        .await?;
                    return Ok(true);
                }
                Err(difference) => not_own(difference),
            };
            // The committer decides about a COMMITTING upload.
            if upload.phase != Phase::Open {
                return Err(error);
            }
            // If the record has changed since it was read, the verdict may be wrong.
            match self.denials.confirm(upload, Denied::Object).await {
                Err(changed) if changed.reason() == Reason::WriterActive => continue,
                confirmed => confirmed?,
            }
            let (seen, refused) = (upload.updated_at, Event::Refused(abort_reason(&error)));
            if self.records.end_untouched(upload, refused, seen).await? {
                return Err(error);
            }
        }
        let message = "other callers changed the upload during each check; retry";
        Err(Error::new(Kind::Unavailable, Reason::WriterActive, message).retry_after(CHECK_AGAIN))
    }

    /// Verifies the object that HEAD found against every digest and block that the store reports. Returns it, or
    /// how it differs from the one that this upload makes. A difference counts only if a second HEAD agrees: the first
    /// one may have reached a replica with an older object.
    ///
    /// # Errors
    /// `Unavailable`, also if the store reports too little to decide.
    pub(in crate::gateway) async fn verify(
        &self,
        storage: &Storage,
        upload: &Upload,
        found: StoredObject,
    ) -> Result<Result<Verified, Difference>> {
        let verified = self.compare(storage, upload, found).await?;
        if verified.is_ok() {
            return Ok(verified);
        }
        let again = storage.store.head(&upload.object_key).await?;
        self.compare(storage, upload, again.ok_or_else(contradiction)?)
            .await
    }

    async fn compare(
        &self,
        storage: &Storage,
        upload: &Upload,
        found: StoredObject,
    ) -> Result<Result<Verified, Difference>> {
        let blocks = storage.store.composition(&upload.object_key).await?;
        let (expected, capabilities) = (storage.expected(upload), storage.capabilities());
        match verify(&expected, &capabilities, Some(&found), blocks.as_deref()) {
            Verdict::Same => {}
            Verdict::Different(difference) => return Ok(Err(difference)),
            Verdict::Absent | Verdict::Unknown => return Err(too_little()),
        }
        let is_single_put = is_put_whole(upload, &found, blocks.as_deref());
        let found = placed(storage, &*storage.store, upload, found).await?;
        let is_proof = is_single_put && capabilities.computes_object_md5 && found.has_digests;
        let digests = Digests {
            md5: found.md5.filter(|_| is_proof),
            crc64nvme: found
                .crc64nvme
                .or_else(|| upload.parts.crc64nvme(found.size)),
        };
        Ok(Ok(Verified { found, digests }))
    }

    /// Aborts an upload that can never become the expected object. The sweeper removes what the store has of it. Returns
    /// `why`, or the error that prevented the abort.
    pub(in crate::gateway) async fn refuse(&self, upload: &mut Upload, why: Error) -> Error {
        let refused = Event::Refused(abort_reason(&why));
        let refused = self.records.transition(upload, &refused, Fence::Writer);
        refused.await.err().unwrap_or(why)
    }

    /// Notes that the store denies something, and aborts the upload because of `why` if an earlier observation agrees.
    /// Returns the error for the caller.
    pub(in crate::gateway) async fn refuse_denied(
        &self,
        upload: &mut Upload,
        denied: Denied,
        why: Error,
    ) -> Error {
        match self.denials.confirm(upload, denied).await {
            Ok(()) => self.refuse(upload, why).await,
            Err(error) => error,
        }
    }

    /// As [`Denials::confirm`].
    pub(in crate::gateway) async fn confirm(
        &self,
        upload: &mut Upload,
        denied: Denied,
    ) -> Result<()> {
        self.denials.confirm(upload, denied).await
    }

    /// Notes that the store denies something, and aborts the upload for `reason` if an earlier observation agrees.
    ///
    /// # Errors
    /// `Unavailable` after the first observation.
    pub(in crate::gateway) async fn end_denied(
        &self,
        upload: &mut Upload,
        denied: Denied,
        reason: AbortReason,
    ) -> Result<()> {
        self.denials.confirm(upload, denied).await?;
        let refused = Event::Refused(reason);
        self.records
            .transition(upload, &refused, Fence::Writer)
            .await
    }

    /// Clears the session in the record, because the store has twice denied that it knows it. If a stream has put parts
    /// into it, they are lost, and the upload is ABORTED.
    ///
    /// # Errors
    /// `Unavailable` after the first observation, `FailedPrecondition` with `SessionLost` if the upload is ABORTED.
    pub(in crate::gateway) async fn forget_session(&self, upload: &mut Upload) -> Result<()> {
        self.denials.confirm(upload, Denied::Session).await?;
        if upload.parts.is_empty() {
            return self
                .records
                .transition(upload, &Event::SessionForgotten, Fence::Writer)
                .await;
        }
        Err(self.refuse(upload, nothing_left()).await)
    }

    /// Makes room in the create index for another upload, if the store denies the session of this one. Returns whether it
    /// does. This upload stays, by id, until it expires or a second observation ends it.
    pub(in crate::gateway) async fn supersede(&self, upload: &mut Upload) -> Result<bool> {
        let storage = self.storages.get(&upload.storage_id)?;
        if self.find_committed(&storage, upload).await?
            || self.denials.denied(&storage, upload).await? != Some(Denied::Session)
        {
            return Ok(false);
        }
        let superseded = self
            .records
            .transition(upload, &Event::Superseded, Fence::None);
        superseded.await?;
        match self.forget_session(upload).await {
            Err(error) if error.is_retryable() || error.reason() == Reason::SessionLost => Ok(true),
            forgotten => forgotten.map(|()| true),
        }
    }

    /// Observes again what the store denied before. If the store has it again, the upload continues.
    ///
    /// # Errors
    /// As for the first observation; after the second one the upload is ABORTED.
    pub(in crate::gateway) async fn reconsider(&self, upload: &mut Upload) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        if self.find_committed(&storage, upload).await? {
            return Ok(());
        }
        match self.denials.denied(&storage, upload).await? {
            None => self.denials.undeny(upload).await,
            Some(Denied::Session) => self.forget_session(upload).await,
            Some(denied) => {
                let why = replaced("the store no longer has a recorded part");
                Err(self.refuse_denied(upload, denied, why).await)
            }
        }
    }

    /// Handles a stream whose session the store does not know. If a client has committed the session, the upload becomes
    /// COMPLETE.
    ///
    /// # Errors
    /// `TakenOver` if the record has another session or writer, `StateLost` if it is missing or older. Otherwise
    /// `Unavailable` after the first observation, and after the second one `why`: the upload is ABORTED.
    pub(in crate::gateway) async fn session_lost(
        &self,
        upload: &mut Upload,
        why: Error,
    ) -> Result<()> {
        let found = self.records.find(&upload.id).await?;
        let Some(found) = found.filter(|found| found.version >= upload.version) else {
            return Err(state_lost());
        };
        if (&found.session, found.writer) != (&upload.session, upload.writer) {
            return Err(taken_over());
        }
        let storage = self.storages.get(&upload.storage_id)?;
        if self.find_committed(&storage, upload).await? {
            return Ok(());
        }
        Err(self.refuse_denied(upload, Denied::Session, why).await)
    }
}
