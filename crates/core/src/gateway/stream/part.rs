//! Hashes a part, puts it into the store and records it, in that order.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::hash::Hasher;
use crate::{
    blobs::{NewPart, Session, contradiction},
    error::{Error, Reason, Result},
    gateway::{
        copy_from::CopyFrom,
        records::Records,
        recovery::inspect::Inspector,
        refusal::state_lost,
        storage::{Storage, Turn},
    },
    meter::{Done, Meter},
    observe::PartToStore,
    upload::{Crc64Nvme, DigestState, FileDigest, Integrity, Part, UploadId, WriterTag},
};

/// How often a part is put that was damaged in flight, or for which the store denied a session that it lists.
const MAX_PUTS: usize = 3;

/// Where the parts of one stream are stored.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) upload_id: UploadId,
    pub(super) key: String,
    pub(super) session: String,
    /// Which digest its parts have.
    pub(super) integrity: Integrity,
    /// The encryption scope of the object.
    pub(super) scope: Option<String>,
    pub(super) writer: WriterTag,
    /// The version of the record under this writer.
    pub(super) version: u64,
    pub(super) storage: Arc<Storage>,
    /// The source of a copy, from which the store copies parts by itself if it can.
    pub(super) copy_from: Option<Arc<CopyFrom>>,
}

/// A part that was received completely.
#[derive(Debug)]
pub(super) struct ReceivedPart {
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// Whether the part is hashed at once, and does not wait for a batch.
    pub(super) is_urgent: bool,
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
    pub(super) records: Arc<Records>,
    pub(super) hasher: Hasher,
    pub(super) inspector: Arc<Inspector>,
    pub(super) meter: Arc<dyn Meter>,
}

// === impl ReceivedPart ===

impl ReceivedPart {
    /// What is shown of it.
    pub(super) fn observed(&self) -> PartToStore {
        PartToStore {
            number: self.number,
            size: self.bytes.len() as u64,
        }
    }
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

// === impl Destination ===

impl Destination {
    /// The session, as requests name it.
    pub(super) fn session(&self) -> Session<'_> {
        Session {
            key: &self.key,
            id: &self.session,
            scope: self.scope.as_deref(),
        }
    }
}

// === impl PartWriter ===

impl PartWriter {
    /// Puts a part, which has a turn, into its session and records it.
    pub(super) async fn store_part(
        &self,
        to: &Destination,
        turn: Turn,
        mut part: ReceivedPart,
    ) -> Result<Part> {
        let link = part.link.take();
        let hashing = || {
            let bytes = part.bytes.clone();
            self.hasher.part(to.integrity, bytes, part.is_urgent)
        };
        // It takes a moment, and the CRC-64 of the file is combined from it.
        let crc64 = match to.integrity {
            Integrity::Crc64Nvme => hashing().await?.crc64nvme(),
            Integrity::Md5 => None,
        };
        let put = async {
            let checksum = match crc64 {
                Some(crc64) => crc64.into(),
                None => hashing().await?,
            };
            let mut turn = Some(turn);
            if let Some(receipt) = to.copy_received(&mut turn, &part, checksum).await {
                return Ok((checksum, receipt));
            }
            let part = NewPart {
                number: part.number,
                writer: to.writer,
                checksum,
                body: part.bytes.clone(),
            };
            let receipt = put_part(to, turn, part).await?;
            Ok((checksum, receipt))
        };
        let follow = self.follow(link, &part.bytes, crc64);
        // Both run to completion even if the put fails, because the next part waits for this link.
        let (put, digest) = tokio::join!(put, follow);
        let (checksum, receipt) = put?;
        let stored = Part {
            number: part.number,
            offset: part.offset,
            size: part.bytes.len() as u64,
            checksum: Some(checksum),
            receipt,
            digest: digest?,
        };
        // Returns the memory to the budget.
        drop(part.bytes);
        self.record(to, &stored, part.committed).await?;
        Ok(stored)
    }

    /// Records a part that is stored. `committed` parts were recorded before.
    pub(super) async fn record(
        &self,
        to: &Destination,
        stored: &Part,
        committed: u32,
    ) -> Result<()> {
        let recorded = std::slice::from_ref(stored);
        let now = self
            .records
            .record_parts(&to.upload_id, to.version, to.writer, recorded)
            .await?;
        // Fewer parts than before are recorded. Recording them again needs a resume token or their bytes.
        if now < committed {
            return Err(state_lost());
        }
        self.note(&to.storage, stored);
        Ok(())
    }

    fn note(&self, storage: &Storage, part: &Part) {
        self.meter.note(Done::Stored {
            storage: &storage.id,
            size: part.size,
        });
    }

    /// Adds a part to the digest of the file: its CRC-64, if it is known and enough, or else its bytes.
    async fn follow(
        &self,
        link: Option<DigestLink>,
        bytes: &Bytes,
        crc64: Option<Crc64Nvme>,
    ) -> Result<Option<DigestState>> {
        let Some(DigestLink { before, after }) = link else {
            return Ok(None);
        };
        let digest = before
            .await
            .map_err(|_| Error::fault("hash a file: the previous part was dropped"))?;
        let size = bytes.len() as u64;
        let digest = match crc64.and_then(|crc64| digest.combined(crc64, size)) {
            Some(combined) => combined,
            None => self.hasher.file(digest, bytes.clone()).await?,
        };
        let state = digest.state();
        // Fails if there is no next part.
        let _ = after.send(digest);
        Ok(Some(state))
    }
}

/// Puts a part. A part that was damaged in flight is put again, because its bytes are still in memory. If the store
/// does not know the session, its list of parts must agree.
async fn put_part(to: &Destination, mut turn: Option<Turn>, part: NewPart) -> Result<String> {
    let (storage, session) = (&to.storage, &to.session());
    let mut tries = 0;
    loop {
        tries += 1;
        let put = storage.put_part(&to.upload_id, turn.take(), session, &part);
        let error = match put.await {
            Err(error) => error,
            put => return put,
        };
        match error.reason() {
            Reason::ChecksumMismatch if tries < MAX_PUTS => {
                tracing::warn!(%error, part = part.number, "the store received other bytes than were sent; the part is put again");
            }
            Reason::SessionLost if storage.store.list_parts(session).await?.is_none() => {
                return Err(error);
            }
            Reason::SessionLost if tries < MAX_PUTS => {}
            Reason::SessionLost => return Err(contradiction()),
            _ => return Err(error),
        }
    }
}
