//! The store's session of an upload (S3: multipart upload, Azure: uncommitted blocks): its creation, end and clean-up.

use std::sync::Arc;

use crate::{
    blobs::{BlobStore, Session, StoredObject},
    call,
    error::{Error, Reason, Result},
    gateway::{
        records::{Fence, Records},
        storage::{Storage, Storages},
    },
    upload::{Cleanup, Digests, Event, Integrity, Upload},
};

/// Creates and ends sessions.
#[derive(Debug)]
pub(in crate::gateway) struct Sessions {
    records: Arc<Records>,
    storages: Storages,
}

// === impl Sessions ===

impl Sessions {
    pub(in crate::gateway) fn new(records: Arc<Records>, storages: Storages) -> Self {
        Self { records, storages }
    }

    /// Creates the session for the parts of a stream, and returns the upload with it. Runs to its end even if the
    /// stream ends earlier. If the session cannot be recorded, it is ended again.
    pub(in crate::gateway) async fn begin(
        self: &Arc<Self>,
        storage: &Arc<Storage>,
        upload: &Upload,
    ) -> Result<Upload> {
        let (sessions, storage) = (Arc::clone(self), Arc::clone(storage));
        let mut upload = upload.clone();
        let begun = tokio::spawn(call::propagate(async move {
            let integrity = storage.session_integrity(&upload).await;
            sessions.start(&storage, &mut upload, integrity).await?;
            Ok(upload)
        }));
        begun
            .await
            .map_err(|error| Error::internal("create a session", error))?
    }

    /// Creates a session and records it. If it cannot be recorded, it is ended again.
    async fn start(
        &self,
        storage: &Storage,
        upload: &mut Upload,
        integrity: Integrity,
    ) -> Result<()> {
        let started = storage.begin_session(upload, integrity).await?;
        let recorded = self
            .records
            .transition(upload, &started, Fence::Writer)
            .await;
        if let (Err(error), Event::SessionStarted { session, .. }) = (&recorded, &started) {
            self.end_unrecorded(upload, session, error).await;
        }
        recorded
    }

    /// Ends the session of an upload without parts, and creates another one.
    pub(in crate::gateway) async fn restart(
        &self,
        storage: &Storage,
        upload: &mut Upload,
        integrity: Integrity,
    ) -> Result<()> {
        let before = upload.clone();
        self.records
            .transition(upload, &Event::SessionForgotten, Fence::Writer)
            .await?;
        let started = self.start(storage, upload, integrity).await;
        if let Err(error) = self.end(&before).await {
            tracing::warn!(upload_id = %upload.id, %error, "a session without a record is left to the sweeper");
        }
        started
    }

    /// Removes everything of an aborted upload from the store: its session, and an object that was never recorded. No
    /// other upload uses its key.
    pub(in crate::gateway) async fn discard(&self, upload: &Upload) -> Result<()> {
        self.end(upload).await?;
        let storage = self.storages.get(&upload.storage_id)?;
        storage.store.delete(&upload.object_key).await?;
        self.records.delete_side(&storage, &upload.id).await
    }

    /// Deletes the file of a COMPLETE upload: the record becomes DELETING, the object is deleted, and the record notes that. If
    /// this stops in between, the sweeper continues.
    pub(in crate::gateway) async fn delete_file(
        &self,
        upload: &mut Upload,
        why: &Event,
    ) -> Result<()> {
        self.records.transition(upload, why, Fence::None).await?;
        if upload.cleanup == Cleanup::Now {
            self.discard(upload).await?;
            self.records.note_cleared(upload).await?;
        }
        Ok(())
    }

    /// Ends the session of an upload, if it has one.
    pub(in crate::gateway) async fn end(&self, upload: &Upload) -> Result<()> {
        if upload.session.is_none() {
            return Ok(());
        }
        let storage = self.storages.get(&upload.storage_id)?;
        storage.store.abort(&store_session(upload)).await
    }

    /// Ends a session that could not be recorded because of the error `why`, unless the record has it anyway. Best
    /// effort: the sweeper ends what is left.
    async fn end_unrecorded(&self, upload: &Upload, session: &str, why: &Error) {
        // After a lost response the record may have it.
        if why.is_retryable() && why.reason() != Reason::StateLost {
            return;
        }
        let Ok(found) = self.records.find_summary_once(&upload.id).await else {
            return;
        };
        if found.is_some_and(|found| found.session.as_deref() == Some(session)) {
            return;
        }
        let unrecorded = Upload {
            session: Some(session.to_owned()),
            ..upload.clone()
        };
        if let Err(error) = self.end(&unrecorded).await {
            tracing::warn!(upload_id = %upload.id, %error, "a session without a record is left to the sweeper");
        }
    }
}

/// The session of the upload, as requests name it. Stores with implicit sessions ignore its id.
pub(in crate::gateway) fn store_session(upload: &Upload) -> Session<'_> {
    Session {
        key: &upload.object_key,
        id: upload.session.as_deref().unwrap_or_default(),
        scope: upload.file.placement.encryption_scope(),
    }
}

/// The object of `upload` that `store`, the one of the storage, describes as `found`, after what a client may have left out is set.
pub(in crate::gateway) async fn placed(
    storage: &Storage,
    store: &dyn BlobStore,
    upload: &Upload,
    found: StoredObject,
) -> Result<StoredObject> {
    if storage.capabilities().binds_placement {
        return Ok(found);
    }
    let promised = upload.promised_md5().map(Digests::from);
    let mut object = storage.new_object(upload, promised.unwrap_or_default());
    // Each time it is sealed, an entry has another text.
    object.record = found.entry().map(str::to_owned).or(object.record);
    store.put_placement(&object, &found).await
}
