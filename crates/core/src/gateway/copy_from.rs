//! The source of a copy, as the store of the copy reads it by itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{download::StoredFile, records::Records};
use crate::{
    blobs::{BlobStore, CopySource},
    error::{Error, Kind, Reason, Result},
};

/// The object of a COMPLETE upload, which the store of a copy reads as long as it has the recorded ETag.
#[derive(Debug)]
pub struct CopyFrom {
    store: Arc<dyn BlobStore>,
    key: String,
    etag: String,
    size: u64,
    records: Arc<Records>,
    /// Whether the store of the copy has refused it. It is not asked again.
    is_refused: AtomicBool,
}

// === impl CopyFrom ===

impl CopyFrom {
    /// The object of `file` in the store `source`, if it and the store of the copy belong to one service.
    pub(super) fn new(
        (source, file): (&Arc<dyn BlobStore>, &StoredFile),
        copy: &dyn BlobStore,
        records: &Arc<Records>,
    ) -> Option<Arc<Self>> {
        let service = source.copy_service()?;
        (copy.copy_service() == Some(service)).then(|| {
            Arc::new(Self {
                store: Arc::clone(source),
                key: file.upload.object_key.clone(),
                etag: file.object.etag.clone(),
                size: file.object.size,
                records: Arc::clone(records),
                is_refused: AtomicBool::new(false),
            })
        })
    }

    /// What one request names. It may be valid for a short time only, so each request gets its own.
    ///
    /// # Errors
    /// Those of [`CopyStore::copy_source`](crate::blobs::CopyStore::copy_source).
    pub(super) async fn source(&self) -> Result<CopySource> {
        self.store
            .copy_source(&self.key, &self.etag, self.records.clock())
            .await
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the store of the copy has not refused it yet.
    pub(super) fn is_offered(&self) -> bool {
        !self.is_refused.load(Ordering::Relaxed)
    }

    /// The store of the copy has refused it, for this reason.
    pub(super) fn refuse(&self, why: &Error) {
        self.is_refused.store(true, Ordering::Relaxed);
        tracing::info!(key = self.key, error = %why, cause = why.causes(), "the store does not copy by itself; the gateway copies");
    }
}

/// Whether the store does not copy by itself.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.kind() == Kind::Unimplemented && error.reason() == Reason::NotOffered
}
