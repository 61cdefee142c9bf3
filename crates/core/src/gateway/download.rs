//! Downloads of complete uploads: through a signed URL, or through the gateway.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use super::{
    audit::audit,
    caller::{Action, Caller},
    records::Records,
    storage::Storages,
};
use crate::{
    blobs::sign::{ReadVerb, SignedRequest, ToSign},
    error::{Error, Reason, Result},
    meter::{Done, Meter},
    upload::{Object, Upload, UploadId},
};

/// The longest validity of a signed download URL, and the default: a day.
pub const DOWNLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A complete upload and its object.
#[derive(Debug)]
pub struct StoredFile {
    /// The upload.
    pub upload: Upload,
    /// The object.
    pub object: Object,
}

/// Reads the objects of complete uploads.
#[derive(Debug)]
pub struct Downloads {
    pub(super) records: Arc<Records>,
    pub(super) storages: Storages,
    pub(super) meter: Arc<dyn Meter>,
}

// === impl Downloads ===

impl Downloads {
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
        let signed = async {
            let StoredFile { upload, .. } = self.stored(caller, id).await?;
            let storage = self.storages.get(&upload.storage_id)?;
            let read = ToSign::Read {
                verb,
                key: &upload.object_key,
                file_name: &upload.file.file_name,
                mime: &upload.file.file_mime,
                lifetime: lifetime.min(DOWNLOAD_LIFETIME),
            };
            storage.store.sign(&read, self.records.clock()).await
        };
        let signed = signed.await;
        audit(&caller.owner, "sign download", Some(id), &signed);
        signed
    }

    /// Finds a complete upload, to read it.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE.
    pub async fn find(&self, caller: &Caller, id: &UploadId) -> Result<StoredFile> {
        let found = self.stored(caller, id).await;
        audit(&caller.owner, "download", Some(id), &found);
        found
    }

    async fn stored(&self, caller: &Caller, id: &UploadId) -> Result<StoredFile> {
        let records = &self.records;
        let upload = records.get_summary(caller, Action::Download, id).await?;
        match upload.object.clone() {
            Some(object) => Ok(StoredFile { upload, object }),
            None => {
                let message = format!(
                    "the upload is {}; only a complete upload can be downloaded",
                    upload.phase
                );
                let error = Error::precondition(Reason::WrongPhase, message);
                Err(error.with("phase", upload.phase))
            }
        }
    }

    /// Reads a range of the bytes of a complete upload.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(
        &self,
        upload: &Upload,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let storage = self.storages.get(&upload.storage_id)?;
        let read = storage.store.read(&upload.object_key, Some(range)).await?;
        let meter = Arc::clone(&self.meter);
        let measured = read.inspect_ok(move |bytes| {
            meter.note(Done::Read {
                storage: &storage.id,
                bytes: bytes.len() as u64,
            });
        });
        Ok(measured.boxed())
    }
}
