//! Downloads of complete uploads: through a signed URL, or through the gateway.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;

use super::{records::Records, settings::Caller, storage::Storages};
use crate::{
    blobs::sign::{ReadVerb, SignedRequest, ToSign},
    error::{Error, Reason, Result},
    upload::{Object, Upload, UploadId},
};

/// The longest validity of a signed download URL, and the default: a day.
pub const DOWNLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The bytes of a complete upload's object, or a range of them.
pub struct Download {
    /// The upload.
    pub upload: Upload,
    /// The range, in bytes.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes>>,
}

/// Reads the objects of complete uploads.
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

    /// Signs a download of a complete upload, or of its headers, valid for `lifetime`, but at most [`DOWNLOAD_LIFETIME`].
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE.
    pub async fn sign_download(
        &self,
        caller: &Caller,
        id: &UploadId,
        verb: ReadVerb,
        lifetime: Duration,
    ) -> Result<SignedRequest> {
        let upload = self.records.get_summary(caller, id).await?;
        object(&upload)?;
        let storage = self.storages.get(&upload.storage_id)?;
        let read = ToSign::Read {
            verb,
            key: &upload.object_key,
            file_name: &upload.file.file_name,
            mime: &upload.file.file_mime,
            lifetime: lifetime.min(DOWNLOAD_LIFETIME),
        };
        storage.store.sign(&read, self.records.clock()).await
    }

    /// Reads the object of a complete upload. `range` gets the object and returns the range of bytes to read.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE; the errors of `range`.
    pub async fn download(
        &self,
        caller: &Caller,
        id: &UploadId,
        range: impl FnOnce(&Object) -> Result<Range<u64>> + Send,
    ) -> Result<Download> {
        let upload = self.records.get_summary(caller, id).await?;
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

/// The object of a complete upload.
fn object(upload: &Upload) -> Result<&Object> {
    upload.object.as_ref().ok_or_else(|| {
        let message = format!(
            "the upload is {}; only a complete upload can be downloaded",
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
