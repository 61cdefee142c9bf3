//! COMPLETE uploads: what the store keeps of a record is written before the change is acknowledged, and lost records are
//! rebuilt from it.

use super::{Fence, Records};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        caller::{Action, Caller},
        object_records::{
            Verified,
            restore::{Restore, RestoreReport},
        },
        storage::Storage,
    },
    meter::Done,
    state::RecordStore,
    upload::{Event, Object, Phase, Upload, UploadId},
};

/// How often the side object of an upload is written while other callers change the upload.
const ATTEMPTS: usize = 8;

// === impl Records ===

impl Records {
    /// Makes an upload COMPLETE whose object was verified.
    ///
    /// # Errors
    /// As [`Records::transition`]; those of the store.
    pub(in crate::gateway) async fn complete(
        &self,
        upload: &mut Upload,
        storage: &Storage,
        verified: Verified,
        fence: Fence,
    ) -> Result<()> {
        let committed = self.committed(upload, storage, verified).await?;
        let mut written = upload.clone();
        let _ = written.apply(committed.clone());
        self.transition(upload, &committed, fence).await?;
        // Another caller may have changed the file, or completed the upload at another time.
        let kept = (&upload.file, upload.file_expires_at);
        match kept == (&written.file, written.file_expires_at) {
            true => Ok(()),
            false => self.keep_current(upload).await,
        }
    }

    /// The event by which an upload becomes COMPLETE whose object was verified. What the object lacks of the record is in its
    /// side object when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::gateway) async fn committed(
        &self,
        upload: &Upload,
        storage: &Storage,
        verified: Verified,
    ) -> Result<Event> {
        let (Verified { found, digests }, at) = (verified, self.now());
        let object = Object {
            bucket: storage.store.bucket().to_owned(),
            key: upload.object_key.clone(),
            etag: found.etag.clone(),
            size: found.size,
            md5: digests.md5,
            crc64nvme: digests.crc64nvme,
        };
        let expires = upload.file_expires(at);
        self.kept
            .complete(storage, upload, (&found, &object), expires)
            .await?;
        Ok(Event::Committed { object, at })
    }

    /// Writes the side object of a COMPLETE upload that has changed. Repeats it if the upload has changed again in the meantime,
    /// so that the last writer leaves what the record has.
    ///
    /// # Errors
    /// Those of the stores.
    pub(in crate::gateway) async fn keep_current(&self, upload: &Upload) -> Result<()> {
        let mut current = upload.clone();
        for _ in 0..ATTEMPTS {
            match current.phase {
                Phase::Complete => {}
                Phase::Deleting => return self.kept.forget(&current).await,
                // Its completion writes the side object.
                Phase::Open | Phase::Committing | Phase::Aborted => return Ok(()),
            }
            if !self.kept.keep(&current).await? {
                return Ok(());
            }
            match self.records.summary(&upload.id).await? {
                Some(found) if found.version != current.version => current = found,
                _ => return Ok(()),
            }
        }
        let message = "other callers changed the upload again and again; retry";
        Err(Error::new(Kind::Unavailable, Reason::WriterActive, message))
    }

    /// Deletes the side object of an upload.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::gateway) async fn delete_side(
        &self,
        storage: &Storage,
        id: &UploadId,
    ) -> Result<()> {
        self.kept.delete(storage, id).await
    }

    /// Whether the store has a record of this COMPLETE upload, too, from which it is rebuilt on demand as it is now.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::gateway) async fn is_restorable(&self, upload: &Upload) -> Result<bool> {
        self.kept.has(upload).await
    }

    /// The change of an expiring COMPLETE upload that was acknowledged, and that the state store has lost.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::gateway) async fn kept_longer(&self, upload: &Upload) -> Result<Option<Event>> {
        self.kept.kept_longer(upload).await
    }

    /// A record that the caller does not find and that was rebuilt from a store. It may have been removed again since, to make room;
    /// if the state store did not take it, it was not stored, unless the action needs that. For an upload of another owner the same stores
    /// are searched, so that the answer takes as long.
    pub(super) async fn rebuilt(
        &self,
        caller: &Caller,
        action: Action,
        id: &UploadId,
        (found, exists): (&Result<Upload>, bool),
    ) -> Result<Option<Upload>> {
        let is_missing = |error: &Error| error.reason() == Reason::UploadNotFound;
        if !found.as_ref().is_err_and(is_missing) {
            return Ok(None);
        }
        let Some(lost) = self.kept.find(caller, id, exists).await? else {
            return Ok(None);
        };
        if !action.only_reads() {
            return self.restore(lost).await.map(Some);
        }
        match self.restore_in(&*self.single_try, lost.clone()).await {
            // It can be full, or not answer. The next call tries again.
            Err(error) if error.is_retryable() || error.reason() == Reason::StateFull => {
                Ok(Some(lost))
            }
            restored => restored.map(Some),
        }
    }

    /// Restores the records of all objects in a storage. Existing records do not change.
    ///
    /// # Errors
    /// `FailedPrecondition` if nothing could be authentic, because there are no keys; those of the stores. What was restored before
    /// stays restored.
    pub async fn restore_all(&self, storage: &Storage, how: Restore) -> Result<RestoreReport> {
        self.kept.restore(self, storage, how).await
    }

    /// Stores a record that was rebuilt, and returns it. An existing one does not change.
    pub(in crate::gateway) async fn restore(&self, upload: Upload) -> Result<Upload> {
        self.restore_in(&*self.records, upload).await
    }

    async fn restore_in(&self, records: &dyn RecordStore, mut upload: Upload) -> Result<Upload> {
        upload.kept_until = self.kept_until(&upload);
        records.create(&upload, u64::MAX).await?;
        self.meter.note(Done::Restored);
        tracing::info!(upload_id = %upload.id, storage_id = upload.storage_id, "restored a record that the state store did not have from the store");
        Ok(upload)
    }
}
