//! Downloads of complete uploads: through a signed URL, or through the gateway.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use super::{
    audit::audit,
    caller::{Action, Caller},
    records::{Fence, Records},
    storage::{Storage, Storages},
};
use crate::{
    blobs::{
        object_archived, object_changed, object_not_found,
        sign::{ReadVerb, SignedRequest, ToSign},
    },
    error::{Error, Kind, Reason, Result},
    meter::{Done, Meter},
    upload::{Event, Object, StoreKind, StoredObject, Upload, UploadId},
};

/// The longest validity of a signed download URL, and the default: a day.
pub const DOWNLOAD_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it may take to find out whether an object is archived, before a link to it is signed.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

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

// === impl StoredFile ===

impl StoredFile {
    /// The range of `length` bytes from `offset` on, as far as the file has them. Without a length, all of them.
    ///
    /// # Errors
    /// `OutOfRange` if the file ends before `offset`.
    pub fn range(&self, offset: u64, length: Option<u64>) -> Result<Range<u64>> {
        let size = self.object.size;
        if offset > size {
            let message = format!("the file ends at {size}");
            let error = Error::new(Kind::OutOfRange, Reason::WrongOffset, message);
            return Err(error.with("object_size", size));
        }
        let end = length.map_or(size, |length| offset.saturating_add(length).min(size));
        Ok(offset..end)
    }

    /// Checks that an object with another ETag has the bytes of the file. On Azure each write has another ETag, also a commit of
    /// the same blocks that was repeated late. On S3 other ETags mean other bytes, unless the digests are equal.
    fn check(&self, found: &StoredObject) -> Result<()> {
        let (upload, known) = (&self.upload, &self.object);
        let md5s = known.md5.zip(found.md5);
        let is_own = found.is_of(&upload.id) && found.size == known.size;
        let is_same = match upload.store_kind {
            StoreKind::Azure => md5s.is_none_or(|(known, found)| known == found),
            StoreKind::S3 => md5s.is_some_and(|(known, found)| known == found),
        };
        if is_own && is_same {
            return Ok(());
        }
        tracing::error!(
            upload_id = %upload.id, key = known.key, size = known.size, etag = known.etag,
            found_size = found.size, found_etag = found.etag,
            "the object in the store is not the one that was uploaded"
        );
        let error = object_changed().with("size", known.size);
        let error = error
            .with("etag", &known.etag)
            .with("object_size", found.size);
        Err(error.with("object_etag", &found.etag))
    }
}

// === impl Downloads ===

impl Downloads {
    /// Signs a download of a complete upload, or of its headers, valid for `lifetime`, but at most [`DOWNLOAD_LIFETIME`].
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` before the upload is COMPLETE, and with `ObjectArchived`.
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
            refuse_archived(&storage, &upload).await?;
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

    /// Notes in the record that the object was replaced. Best effort: the next read notes it, too.
    async fn note_changed(&self, upload: &Upload) {
        let at = self.records.now();
        let (mut upload, changed) = (upload.clone(), Event::ObjectChanged { at });
        let noted = self.records.transition(&mut upload, &changed, Fence::None);
        if let Err(error) = noted.await {
            tracing::warn!(upload_id = %upload.id, %error, "the record does not have that its object was replaced");
        }
    }

    /// Reads a range of the bytes of a complete upload.
    ///
    /// # Errors
    /// `DataLoss` with `ObjectChanged` if the store has another object; `FailedPrecondition` with `ObjectArchived`; those of the
    /// store.
    pub async fn read(
        &self,
        file: &StoredFile,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let StoredFile { upload, object } = file;
        let storage = self.storages.get(&upload.storage_id)?;
        let (store, key) = (&storage.store, &upload.object_key);
        let read = store.read(key, Some(range.clone()), Some(&object.etag));
        let read = match read.await {
            Err(error) if error.reason() == Reason::ObjectChanged => {
                let found = store.head(key).await?;
                let found = found.ok_or_else(|| object_not_found(key))?;
                if let Err(changed) = file.check(&found) {
                    self.note_changed(upload).await;
                    return Err(changed);
                }
                store.read(key, Some(range), Some(&found.etag)).await?
            }
            read => read?,
        };
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

/// Refuses a link to an object that cannot be read. A lifecycle rule of the bucket can archive objects at any time, so the store
/// is asked. A store that does not answer in time prevents no link: signing needs no store.
async fn refuse_archived(storage: &Storage, upload: &Upload) -> Result<()> {
    if storage.capabilities().features.storage_classes.is_empty() {
        return Ok(());
    }
    let found = storage.single_try.head(&upload.object_key);
    match tokio::time::timeout(LOOK_TIMEOUT, found).await {
        Ok(Ok(Some(found))) if found.is_archived => Err(object_archived()),
        _ => Ok(()),
    }
}
