//! One part's way: hashed, put, recorded, in that order.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Gateway, Storage, state_lost, taken_over};
use crate::{
    blobs::{NewObject, NewPart, Put, Session},
    error::{Error, Kind, Reason, Result},
    state::PartRecord,
    upload::{
        DigestState, FileDigest, Md5, Part, Phase, Upload, UploadId, WriterTag,
        object::{Expected, Strictness, Verdict, verify},
    },
};

/// Where one stream's parts go.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) upload_id: UploadId,
    pub(super) key: String,
    pub(super) session: String,
    pub(super) writer: WriterTag,
    /// The record's version under that writer.
    pub(super) version: u64,
    pub(super) storage: Arc<Storage>,
}

/// A part that was received whole.
#[derive(Debug)]
pub(super) struct ReceivedPart {
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// Whether the sender now waits for it.
    pub(super) is_last: bool,
    /// How many parts were committed when it was sent on its way.
    pub(super) committed: u32,
    pub(super) link: Option<DigestLink>,
}

/// A part's link in the chain of the whole-file digest: it waits for the part before, and hands on to the next.
#[derive(Debug)]
pub(super) struct DigestLink {
    before: oneshot::Receiver<FileDigest>,
    after: oneshot::Sender<FileDigest>,
}

/// The end of the chain, to which the next part is linked.
#[derive(Debug)]
pub(super) struct DigestChain(oneshot::Receiver<FileDigest>);

// === impl DigestChain ===

impl DigestChain {
    /// A chain that goes on from `digest`.
    pub(super) fn from(digest: FileDigest) -> Self {
        let (after, before) = oneshot::channel();
        // Cannot fail: the receiver is right here.
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

// === impl Gateway ===

impl Gateway {
    /// Puts a part into its session and records it.
    pub(super) async fn store_part(&self, to: &Destination, part: ReceivedPart) -> Result<Part> {
        let session = Session {
            key: &to.key,
            id: &to.session,
        };
        let put = async {
            let md5 = self.hasher.part(part.bytes.clone(), part.is_last).await?;
            let put = self.retry.run(|| {
                let part = NewPart {
                    number: part.number,
                    writer: to.writer,
                    md5,
                    body: part.bytes.clone(),
                };
                to.storage.store.put_part(&session, part)
            });
            Ok((md5, put.await?))
        };
        // Both to their end, whatever becomes of the put: the next part waits for this link.
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
        // Gives its memory back.
        drop(part.bytes);
        let recorded = std::slice::from_ref(&stored);
        let committed = self
            .record_parts(&to.upload_id, to.version, to.writer, recorded)
            .await?;
        // Fewer than there were: some have to be recorded again, which takes a token or their bytes.
        if committed < part.committed {
            return Err(state_lost());
        }
        Ok(stored)
    }

    /// Puts a small file whole and records it as its only part. A store that cannot put only where there is no object
    /// gets nothing, and the part comes back.
    pub(super) async fn store_whole(
        &self,
        storage: &Storage,
        upload: &Upload,
        writer: WriterTag,
        part: ReceivedPart,
    ) -> Result<Result<Part, ReceivedPart>> {
        let md5 = self.hasher.part(part.bytes.clone(), true).await?;
        let object = new_object(upload, Some(md5));
        let put = self
            .retry
            .run(|| storage.store.put_object(&object, part.bytes.clone()));
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
            .record_parts(&upload.id, upload.version, writer, recorded)
            .await
        {
            // The commit will find it so.
            Err(error)
                if error.reason() == Reason::WrongPhase
                    && self.is_complete_with(&upload.id, &stored.receipt).await? => {}
            recorded => drop(recorded?),
        }
        Ok(Ok(stored))
    }

    /// Whether somebody has found the object of that receipt in the store, and completed the upload with it.
    async fn is_complete_with(&self, id: &UploadId, receipt: &str) -> Result<bool> {
        let found = self.retry.run(|| self.state.get(id)).await?;
        let object = found
            .filter(|upload| upload.phase == Phase::Complete)
            .and_then(|upload| upload.object);
        Ok(object.is_some_and(|object| object.etag == receipt))
    }

    /// The MD5 of bytes that are only compared.
    pub(super) async fn digest(&self, bytes: Bytes) -> Result<Md5> {
        self.hasher.part(bytes, true).await
    }

    async fn follow(&self, link: Option<DigestLink>, bytes: &Bytes) -> Result<Option<DigestState>> {
        let Some(DigestLink { before, after }) = link else {
            return Ok(None);
        };
        let digest = before
            .await
            .map_err(|_| Error::fault("hash a file: the chain is broken"))?;
        let digest = self.hasher.file(digest, bytes.clone()).await?;
        let state = digest.state();
        // The last part has no next one.
        let _ = after.send(digest);
        Ok(Some(state))
    }

    /// Records what the store has acknowledged, for the stream that took the upload over under `version`. Returns how many
    /// parts are now committed.
    pub(super) async fn record_parts(
        &self,
        id: &UploadId,
        version: u64,
        writer: WriterTag,
        parts: &[Part],
    ) -> Result<u32> {
        let times = self.times();
        match self
            .retry
            .run(|| self.state.record_parts(id, writer, version, parts, times))
            .await?
        {
            PartRecord::Recorded { committed } => Ok(committed),
            PartRecord::TakenOver => Err(self.fenced_out(id, version).await),
            PartRecord::NotOpen(phase) => Err(Error::precondition(
                Reason::WrongPhase,
                format!("the upload is {phase}"),
            )
            .with("phase", phase)),
            PartRecord::Missing => Err(state_lost()),
        }
    }

    /// Why another writer stands in the record of a stream that took it over under `version`: a newer stream did so since,
    /// or the state store went back to what was before.
    async fn fenced_out(&self, id: &UploadId, version: u64) -> Error {
        match self.retry.run(|| self.state.get(id)).await {
            Ok(Some(current)) if current.version >= version => taken_over(),
            Ok(_) => state_lost(),
            Err(error) => error,
        }
    }

    /// An object that was there before a single put is this upload's own when it has its bytes: the answer to an
    /// earlier try was lost.
    async fn own_object(
        &self,
        storage: &Storage,
        upload: &Upload,
        size: u64,
        md5: Md5,
    ) -> Result<String> {
        let found = self
            .retry
            .run(|| storage.store.head(&upload.object_key))
            .await?;
        let verdict = verify(
            &Expected::of_single_put(upload, size, md5),
            &storage.store.capabilities(),
            found.as_ref(),
            None,
            Strictness::SinglePut,
        );
        found
            .filter(|_| verdict == Verdict::Same)
            .map(|object| object.etag)
            .ok_or_else(|| {
                Error::precondition(
                    Reason::PartReplaced,
                    "the store holds other bytes of this upload",
                )
            })
    }
}

/// The object an upload becomes.
pub(super) fn new_object(upload: &Upload, md5: Option<Md5>) -> NewObject {
    NewObject {
        key: upload.object_key.clone(),
        mime: upload.file.file_mime.clone(),
        upload_id: upload.id.clone(),
        md5,
    }
}
