//! Hashes a part, puts it into the store and records it, in that order.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::hash::Hasher;
use crate::{
    blobs::{NewPart, Put, Session},
    error::{Error, Kind, Reason, Result},
    gateway::{
        records::Records,
        recovery::session::new_object,
        refusal::{replaced, state_lost},
        storage::Storage,
    },
    upload::{
        DigestState, FileDigest, Md5, Part, Phase, Upload, UploadId, WriterTag,
        object::{Expected, Verdict, verify},
    },
};

/// Where the parts of one stream are stored.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) upload_id: UploadId,
    pub(super) key: String,
    pub(super) session: String,
    pub(super) writer: WriterTag,
    /// The version of the record under this writer.
    pub(super) version: u64,
    pub(super) storage: Arc<Storage>,
}

/// A part that was received completely.
#[derive(Debug)]
pub(super) struct ReceivedPart {
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// Whether the sender waits for this part.
    pub(super) is_last: bool,
    /// The number of committed parts when this part was dispatched.
    pub(super) committed: u32,
    pub(super) link: Option<DigestLink>,
}

/// A part's link in the chain of file digests. It receives the digest up to the start of the part and passes it on with
/// the part added.
#[derive(Debug)]
pub(super) struct DigestLink {
    before: oneshot::Receiver<FileDigest>,
    after: oneshot::Sender<FileDigest>,
}

/// The end of the chain. The next part is linked here.
#[derive(Debug)]
pub(super) struct DigestChain(oneshot::Receiver<FileDigest>);

/// Hashes, puts and records parts.
#[derive(Debug)]
pub(super) struct PartWriter {
    records: Arc<Records>,
    hasher: Hasher,
}

// === impl DigestChain ===

impl DigestChain {
    /// A chain that continues from `digest`.
    pub(super) fn from(digest: FileDigest) -> Self {
        let (after, before) = oneshot::channel();
        // Cannot fail: the receiver exists.
        let _ = after.send(digest);
        Self(before)
    }

    /// Links the next part.
    pub(super) fn link(&mut self) -> DigestLink {
        let (after, next) = oneshot::channel();
        DigestLink {
            before: std::mem::replace(&mut self.0, next),
            after,
        }
    }
}

// === impl PartWriter ===

impl PartWriter {
    pub(super) fn new(records: Arc<Records>, hasher: Hasher) -> Self {
        Self { records, hasher }
    }

    /// Puts a part into its session and records it.
    pub(super) async fn store_part(&self, to: &Destination, part: ReceivedPart) -> Result<Part> {
        let session = Session {
            key: &to.key,
            id: &to.session,
        };
        let put = async {
            let md5 = self.hasher.part(part.bytes.clone(), part.is_last).await?;
            let part = NewPart {
                number: part.number,
                writer: to.writer,
                md5,
                body: part.bytes.clone(),
            };
            let receipt = to.storage.store.put_part(&session, part).await?;
            Ok((md5, receipt))
        };
        // Both run to completion even if the put fails, because the next part waits for this link.
        let (put, digest) = tokio::join!(put, self.follow(part.link, &part.bytes));
        let (md5, receipt) = put?;
        let stored = Part {
            number: part.number,
            offset: part.offset,
            size: part.bytes.len() as u64,
            md5: Some(md5),
            receipt,
            digest: digest?,
        };
        // Returns the memory to the budget.
        drop(part.bytes);
        let recorded = std::slice::from_ref(&stored);
        let committed = self
            .records
            .record_parts(&to.upload_id, to.version, to.writer, recorded)
            .await?;
        // Fewer parts than before are recorded. Recording them again needs a resume token or their bytes.
        if committed < part.committed {
            return Err(state_lost());
        }
        Ok(stored)
    }

    /// Puts a small file as one object, and records it as the only part. If the store has no conditional put, nothing
    /// is sent and the part is returned.
    pub(super) async fn store_whole(
        &self,
        storage: &Storage,
        upload: &Upload,
        writer: WriterTag,
        part: ReceivedPart,
    ) -> Result<Result<Part, ReceivedPart>> {
        let md5 = self.hasher.part(part.bytes.clone(), true).await?;
        let object = new_object(upload, Some(md5));
        let put = storage.store.put_object(&object, part.bytes.clone());
        let size = part.bytes.len() as u64;
        let receipt = match put.await {
            Ok(Put::Stored(etag)) => etag,
            Ok(Put::Exists) => self.own_object(storage, upload, size, md5).await?,
            Err(error) if error.kind() == Kind::Unimplemented => return Ok(Err(part)),
            Err(error) => return Err(error),
        };
        let digest = self.follow(part.link, &part.bytes).await?;
        let stored = Part {
            number: part.number,
            offset: part.offset,
            size,
            md5: Some(md5),
            receipt,
            digest,
        };
        let recorded = std::slice::from_ref(&stored);
        match self
            .records
            .record_parts(&upload.id, upload.version, writer, recorded)
            .await
        {
            // The commit finds the object.
            Err(error)
                if error.reason() == Reason::WrongPhase
                    && self.is_complete_with(&upload.id, &stored.receipt).await? => {}
            recorded => drop(recorded?),
        }
        Ok(Ok(stored))
    }

    /// Whether another caller found the object with this receipt in the store, and completed the upload with it.
    async fn is_complete_with(&self, id: &UploadId, receipt: &str) -> Result<bool> {
        let found = self.records.find(id).await?;
        let object = found
            .filter(|upload| upload.phase == Phase::Complete)
            .and_then(|upload| upload.object);
        Ok(object.is_some_and(|object| object.etag == receipt))
    }

    async fn follow(&self, link: Option<DigestLink>, bytes: &Bytes) -> Result<Option<DigestState>> {
        let Some(DigestLink { before, after }) = link else {
            return Ok(None);
        };
        let digest = before
            .await
            .map_err(|_| Error::fault("hash a file: the previous part was dropped"))?;
        let digest = self.hasher.file(digest, bytes.clone()).await?;
        let state = digest.state();
        // Fails if there is no next part.
        let _ = after.send(digest);
        Ok(Some(state))
    }

    /// The ETag of an object that existed before a single put. The object is the upload's own if it has the same bytes:
    /// then the response to an earlier attempt was lost.
    async fn own_object(
        &self,
        storage: &Storage,
        upload: &Upload,
        size: u64,
        md5: Md5,
    ) -> Result<String> {
        let found = storage.store.head(&upload.object_key).await?;
        let verdict = verify(
            &Expected::of_single_put(upload, size, md5),
            &storage.capabilities(),
            found.as_ref(),
            None,
        );
        found
            .filter(|_| verdict == Verdict::Same)
            .map(|object| object.etag)
            .ok_or_else(|| replaced("the store has an object with other bytes for this upload"))
    }
}
