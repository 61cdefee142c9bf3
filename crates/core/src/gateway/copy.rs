//! Copies and moves files inside a storage and between storages.
//!
//! A copy is an upload of its own, which a stream of [messages](attempt) writes. If it can, the store copies the bytes by itself;
//! otherwise the gateway reads the source and streams it into the copy through the memory budget. Both read the source only as long
//! as it has the recorded ETag. So a copy that stops continues where it was committed, and is verified as any other upload.

mod attempt;
mod content;

use tokio_util::sync::CancellationToken;

use self::attempt::Copying;
use super::{
    Gateway,
    audit::audit,
    caller::{Action, Caller},
    copy_from::{CopyFrom, is_refusal},
    download::StoredFile,
    message::Observer,
    records::Fence,
    refusal::wrong_phase,
    storage::Storage,
};
use crate::{
    blobs::object_changed,
    error::{Error, Kind, Reason, Result},
    upload::{DigestChoice, Event, FileMetadata, Object, Phase, StoredObject, Upload, UploadId},
};

/// How often a move is finished whose source changes at the same time.
const ATTEMPTS: usize = 8;

/// What a copy makes of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The source stays.
    Copied,
    /// The source is deleted when the copy is COMPLETE.
    Moved,
}

/// Where a copy goes, and how its caller follows it.
#[derive(Debug)]
pub struct CopyTo {
    /// The storage of the copy. Empty for the default storage of the caller.
    pub storage_id: String,
    /// Receives the copy when it was opened, and its progress.
    pub observer: Observer,
    /// Cancelled if the caller has disconnected. What was committed by then is kept.
    pub cancelled: CancellationToken,
}

// === impl Gateway ===

impl Gateway {
    /// Copies the file of a COMPLETE upload to a storage, and returns the copy when it is COMPLETE. The copy has the owner, the name,
    /// the permissions and the expiry of the source. An identical call continues an open copy.
    ///
    /// # Errors
    /// `NotFound`, also for a storage that is not the caller's; `PermissionDenied` if the caller is not the owner;
    /// `FailedPrecondition` if the source is not COMPLETE; `DataLoss` if its object has changed; those of a stream.
    pub async fn copy_upload(&self, caller: &Caller, id: &UploadId, to: CopyTo) -> Result<Upload> {
        let copied = async {
            let source = self.source(caller, id).await?;
            self.copy(caller, &source, to, After::Copied).await
        };
        let copied = copied.await;
        audit(&caller.owner, "copy", Some(id), &copied);
        copied
    }

    /// Copies the file of a COMPLETE upload to a storage, deletes the source, and returns the copy. For some time after that, calls
    /// with the id of the source answer with the id of the copy, and a repeated move returns the copy.
    ///
    /// # Errors
    /// As [`Gateway::copy_upload`].
    pub async fn move_upload(&self, caller: &Caller, id: &UploadId, to: CopyTo) -> Result<Upload> {
        let moved = self.move_file(caller, id, to).await;
        audit(&caller.owner, "move", Some(id), &moved);
        moved
    }

    async fn move_file(&self, caller: &Caller, id: &UploadId, to: CopyTo) -> Result<Upload> {
        let records = &self.records;
        let earlier = records.get_moved(caller, id).await?;
        if let Some(copy) = earlier {
            return Ok(copy);
        }
        let source = self.source(caller, id).await?;
        let storage = self.storages.for_caller(caller, &to.storage_id)?;
        let made = match &source.upload.moves_to {
            Some(known) => self.made_copy(known, &source, &storage.id).await?,
            None => None,
        };
        let copy = match made {
            Some(copy) => copy,
            None => self.copy(caller, &source, to, After::Moved).await?,
        };
        self.finish_move(source.upload, copy).await
    }

    /// The COMPLETE copy of an earlier move, if its object is still the one that was recorded.
    async fn made_copy(
        &self,
        id: &UploadId,
        source: &StoredFile,
        storage_id: &str,
    ) -> Result<Option<Upload>> {
        let found = self.records.find_summary(id).await?;
        let is_made = |copy: &Upload| {
            let is_of = copy.copy_of.as_ref() == Some(&source.upload.id);
            let is_same = copy.object_changed_at.is_none() && copy.storage_id == storage_id;
            copy.phase == Phase::Complete && is_of && is_same
        };
        let Some(copy) = found.filter(is_made) else {
            return Ok(None);
        };
        let is_kept = self.has_object(&copy).await?;
        Ok(Some(copy).filter(|_| is_kept))
    }

    /// Whether the store has the object that the record names.
    async fn has_object(&self, upload: &Upload) -> Result<bool> {
        let storage = self.storages.get(&upload.storage_id)?;
        let found = storage.store.head(&upload.object_key).await?;
        let is_known = |(found, known): (StoredObject, &Object)| {
            found.size == known.size && (found.etag == known.etag || found.is_of(&upload.id))
        };
        Ok(found.zip(upload.object.as_ref()).is_some_and(is_known))
    }

    /// Deletes the source of a move, if its copy is there, and expires when the source does. A caller may have changed that while
    /// the file was copied, and again in between.
    async fn finish_move(&self, mut source: Upload, copy: Upload) -> Result<Upload> {
        for _ in 0..ATTEMPTS {
            let found = self.records.find_summary(&copy.id).await?;
            let mut copy = found
                .filter(|copy| copy.phase == Phase::Complete)
                .ok_or_else(|| Error::upload_not_found(&copy.id))?;
            if !self.has_object(&copy).await? {
                return Err(object_changed());
            }
            if let Some(current) = self.records.find_summary(&source.id).await? {
                source = current;
            }
            let expires = source.file_expires_at;
            if copy.file_expires_at != expires {
                let kept = Event::KeptUntil { at: expires };
                self.records
                    .transition(&mut copy, &kept, Fence::None)
                    .await?;
                self.records.keep_current(&copy).await?;
            }
            let moved = Event::Moved {
                to: copy.id.clone(),
                expires,
            };
            // If the deletion fails, the record is DELETING, and the sweeper continues.
            match self.sessions.delete_file(&mut source, &moved).await {
                Err(error) if error.reason() == Reason::WrongPhase => {}
                deleted => return deleted.map(|()| copy),
            }
        }
        let message = "other callers changed the source again and again; move it again";
        Err(Error::new(Kind::Unavailable, Reason::WriterActive, message))
    }

    /// The file to copy.
    async fn source(&self, caller: &Caller, id: &UploadId) -> Result<StoredFile> {
        let upload = self.records.get_summary(caller, Action::Send, id).await?;
        self.storages.for_caller(caller, &upload.storage_id)?;
        match upload.object.clone() {
            Some(object) => Ok(StoredFile { upload, object }),
            None => Err(wrong_phase(upload.phase)),
        }
    }

    /// Copies the file. If the store of the copy refuses to do so by itself, its bytes pass through the gateway.
    async fn copy(
        &self,
        caller: &Caller,
        source: &StoredFile,
        to: CopyTo,
        after: After,
    ) -> Result<Upload> {
        let storage = self.storages.for_caller(caller, &to.storage_id)?;
        let stored = self.storages.get(&source.upload.storage_id)?;
        let from = CopyFrom::new((&stored.store, source), &*storage.store, &self.records);
        let Observer {
            opened,
            counts,
            moves_on,
        } = to.observer;
        let mut copying = Copying {
            gateway: self,
            caller,
            source,
            file: self.file_of_copy(source, &storage)?,
            to: storage,
            is_move: after == After::Moved,
            can_copy: from.is_some(),
            opened: Some(opened),
            counts,
            moves_on,
            cancelled: to.cancelled,
        };
        let copied = Box::pin(copying.attempt(from.clone())).await;
        match (copied, from) {
            (Err(error), Some(from)) if is_refusal(&error) => {
                from.refuse(&error);
                Box::pin(copying.attempt(None)).await
            }
            (copied, _) => copied,
        }
    }

    /// The file of a copy. It expires no earlier than the source. Another storage has a class and an encryption of its own.
    fn file_of_copy(&self, source: &StoredFile, storage: &Storage) -> Result<FileMetadata> {
        let StoredFile { upload, object } = source;
        let now = self.records.now();
        if let (None, Some(max)) = (upload.file_expires_at, storage.expiry.max) {
            let problem = format!(
                "the storage keeps files for at most {max} seconds, and the source does not expire"
            );
            return Err(Error::invalid("storage_id", problem).with("max_expire_after", max));
        }
        let mut placement = upload.file.placement.clone();
        if storage.id != upload.storage_id {
            (placement.storage_class, placement.encryption) = (None, None);
        }
        let left = upload.file_expires_at.map(|at| at.0.saturating_sub(now.0));
        Ok(FileMetadata {
            file_size: Some(object.size),
            file_id: object.md5.map(|md5| md5.to_string()),
            // A digest that is known is checked.
            file_digest: match object.md5 {
                Some(_) => DigestChoice::Md5,
                None => upload.file.file_digest,
            },
            expire_after: left.map(|left| left.div_ceil(1000).max(1)),
            placement,
            ..upload.file.clone()
        })
    }
}
