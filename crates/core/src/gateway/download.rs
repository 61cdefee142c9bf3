//! Downloads of finished uploads: by a signed URL, or through the gateway.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;

use super::{records::Records, settings::Caller, storage::Storages};
use crate::{
    blobs::sign::{SignedRequest, ToSign},
    error::{Error, Reason, Result},
    upload::{Object, Upload, UploadId},
};

/// The longest time a download is signed for, and the usual one: a day.
pub const DOWNLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of a finished upload's object.
pub struct Download {
    /// The upload.
    pub upload: Upload,
    /// Which bytes they are.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

/// Reads finished uploads.
#[derive(Debug)]
pub struct Downloads {
    records: Arc<Records>,
    storages: Storages,
}

// === impl Downloads ===

impl Downloads {
    pub(super) fn new(records: Arc<Records>, storages: Storages) -> Self {
        Self { records, storages }
    }

    /// Signs a download of a finished upload, for [`DOWNLOAD_LIFETIME`] or less.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE.
    pub async fn sign_download(
        &self,
        caller: &Caller,
        id: &UploadId,
        lifetime: Duration,
    ) -> Result<SignedRequest> {
        let upload = self.records.get_upload(caller, id).await?;
        object(&upload)?;
        let storage = self.storages.get(&upload.storage_id)?;
        let read = ToSign::Read {
            key: &upload.object_key,
            file_name: &upload.file.file_name,
            mime: &upload.file.file_mime,
            lifetime: lifetime.min(DOWNLOAD_LIFETIME),
        };
        storage.store.sign(&read, self.records.clock()).await
    }

    /// Reads a finished upload's object, or the bytes of it that `range` chooses when it is shown the object.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE; those of `range`.
    pub async fn download(
        &self,
        caller: &Caller,
        id: &UploadId,
        range: impl FnOnce(&Object) -> Result<Range<u64>> + Send,
    ) -> Result<Download> {
        let upload = self.records.get_upload(caller, id).await?;
        let range = range(object(&upload)?)?;
        let storage = self.storages.get(&upload.storage_id)?;
        let read = storage.store.read(&upload.object_key, Some(range.clone()));
        Ok(Download {
            bytes: read.await?,
            range,
            upload,
        })
    }
}

/// The finished object.
fn object(upload: &Upload) -> Result<&Object> {
    upload.object.as_ref().ok_or_else(|| {
        let message = format!(
            "the upload is {}; only a complete one can be read",
            upload.phase
        );
        Error::precondition(Reason::WrongPhase, message).with("phase", upload.phase)
    })
}

impl fmt::Debug for Download {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Download")
            .field("upload", &self.upload.id)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
