//! A small file: one object, put without a session.

use bytes::Bytes;

use super::part::PartWriter;
use crate::{
    blobs::{NewObject, Put, contradiction},
    error::{Kind, Reason, Result},
    gateway::{
        recovery::session::placed,
        refusal::{not_own, replaced, too_little},
        storage::Storage,
    },
    meter::Done,
    upload::{
        Denied, Digests, StoredObject, Upload,
        object::{Difference, Expected, Verdict, verify},
    },
};

/// How often an object is put that was damaged in flight.
const MAX_PUTS: usize = 3;

// === impl PartWriter ===

impl PartWriter {
    /// Puts the bytes of a small file, with their digests, as the object of `upload`, and returns the object. An object with the same bytes is one that an earlier
    /// attempt made. `None`, and nothing is sent, if the store has no conditional put.
    pub(super) async fn put_whole(
        &self,
        storage: &Storage,
        upload: &mut Upload,
        (bytes, digests): (&Bytes, Digests),
    ) -> Result<Option<StoredObject>> {
        let size = bytes.len() as u64;
        // The size of the file may not have been known before.
        let mut sized = upload.clone();
        sized.file.file_size = Some(size);
        let object = NewObject {
            integrity: storage.integrity().await,
            ..storage.new_object(&sized, digests)
        };
        let put = match put_object(storage, &object, bytes).await {
            Err(error) if error.kind() == Kind::Unimplemented => return Ok(None),
            put => put?,
        };
        self.meter.note(Done::Stored {
            storage: &storage.id,
            size,
        });
        let is_new = match put {
            // The answer proves everything.
            Put::Stored(stored)
                if digests.is_proven_by(&stored.digests) && !storage.requires_encryption =>
            {
                return Ok(Some(object.stored(stored.etag, size)));
            }
            Put::Stored(_) => true,
            Put::Exists => false,
        };
        // What existed before has the same bytes only if a digest proves it.
        let expected =
            Expected::of_single_put(&sized, size, digests, !is_new).put_with(object.integrity);
        let found = storage
            .retry
            .run_whole(|| find_own(storage, &object.key, &expected))
            .await?;
        match found {
            Ok(found) => placed(storage, &*storage.store, &sized, found)
                .await
                .map(Some),
            Err(difference) if is_new => {
                let why = not_own(difference);
                Err(self
                    .inspector
                    .refuse_denied(upload, Denied::Object, why)
                    .await)
            }
            Err(_) => {
                self.inspector.confirm(upload, Denied::Object).await?;
                Err(replaced(
                    "the store has an object with other bytes for this upload",
                ))
            }
        }
    }
}

/// Puts a whole object, again if it was damaged in flight.
async fn put_object(storage: &Storage, object: &NewObject, bytes: &Bytes) -> Result<Put> {
    for _ in 1..MAX_PUTS {
        match storage.store.put_object(object, bytes.clone()).await {
            Err(error) if error.reason() == Reason::ChecksumMismatch => {
                tracing::warn!(%error, "the store received other bytes than were sent; the object is put again");
            }
            put => return put,
        }
    }
    storage.store.put_object(object, bytes.clone()).await
}

/// The object with this key, or how it differs from the expected one. A difference counts only if a second HEAD agrees: the first
/// one may have reached a replica with an older object.
async fn find_own(
    storage: &Storage,
    key: &str,
    expected: &Expected<'_>,
) -> Result<Result<StoredObject, Difference>> {
    let head = async || {
        let found = storage.single_try.head(key).await?;
        let expected = expected.encrypted(storage.demand());
        let verdict = verify(&expected, &storage.capabilities(), found.as_ref(), None);
        match (verdict, found) {
            (Verdict::Same, Some(found)) => Ok(Ok(found)),
            (Verdict::Different(difference), _) => Ok(Err(difference)),
            (Verdict::Unknown, _) => Err(too_little()),
            (Verdict::Absent | Verdict::Same, _) => Err(contradiction()),
        }
    };
    match head().await? {
        Err(_) => head().await,
        found => Ok(found),
    }
}
