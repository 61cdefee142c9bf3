//! The messages of an upload stream, and its progress.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::copy_from::CopyFrom;
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{CompositeMd5, Crc64Nvme, Digests, FileMetadata, Md5, Upload, UploadId},
};

/// One message of a stream.
#[derive(Debug)]
pub enum Message {
    /// The first message. It is only allowed there.
    Open(Open),
    /// The next bytes of the file.
    Chunk(Chunk),
    /// Some of the next bytes of the file: those of a chunk that is still arriving. They count only once its end has arrived and
    /// was checked. The first chunk of a stream is never in pieces, so that it is known where they belong.
    Piece(Bytes),
    /// The end of a chunk that arrived in pieces.
    ChunkEnd(ChunkEnd),
    /// The pieces of the chunk that is arriving do not count. Another message follows in its place.
    Void,
    /// The last message: the file is whole.
    Finish(Finish),
    /// The store copies the part with this number by itself, from the source in the first message.
    CopyPart(u32),
    /// The only other message: the store copies the whole object by itself, from the source in the first message.
    CopyObject,
    /// The last message of a copy of which not all bytes passed through this stream.
    FinishCopy(FinishCopy),
}

/// Creates an upload, or opens an existing one.
#[derive(Debug)]
pub struct Open {
    /// The file or the upload to open.
    pub target: Target,
    /// The newest resume token of the upload. Empty before the first one.
    pub resume_token: String,
    /// Whether to abort an open upload that an identical create made, and create a new one.
    pub restart: bool,
    /// Whether the stream may take over an upload from an active stream.
    pub takeover: Takeover,
}

/// Whether a stream may take over an upload from an active stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Takeover {
    /// Yes; the other stream ends.
    #[default]
    Force,
    /// No; the new stream is rejected.
    Forbid,
}

/// What a stream opens.
#[derive(Debug)]
pub enum Target {
    /// A new upload of a file, or the upload that an identical create made.
    File {
        /// The file.
        file: FileMetadata,
        /// The id of the storage. Empty for the default storage.
        storage_id: String,
    },
    /// A copy of the file of another upload, or the open one that an identical copy made.
    Copy {
        /// The other upload.
        of: UploadId,
        /// The file of the copy.
        file: Box<FileMetadata>,
        /// The id of the storage.
        storage_id: String,
        /// What the store of the copy can read by itself.
        from: Option<Arc<CopyFrom>>,
    },
    /// An existing upload.
    Upload(UploadId),
}

/// Bytes of the file.
#[derive(Debug)]
pub struct Chunk {
    /// The position of the first byte in the file, in bytes.
    pub offset: u64,
    /// The bytes. Empty in a keep-alive message.
    pub data: Bytes,
    /// The CRC32C of `data`, if the sender set it.
    pub crc32c: Option<u32>,
}

/// What is known at the end of a chunk that arrived in pieces.
#[derive(Debug)]
pub struct ChunkEnd {
    /// The position of the first byte in the file, in bytes.
    pub offset: u64,
    /// The CRC32C of all pieces, if the sender set it.
    pub crc32c: Option<u32>,
}

/// The file is whole.
#[derive(Debug, Default)]
pub struct Finish {
    /// The size of the file in bytes, if the sender set it.
    pub file_size: Option<u64>,
    /// The MD5 of the file, if the sender set it.
    pub file_id: Option<Md5>,
    /// The CRC-64/NVME of the file, if the sender set it.
    pub crc64nvme: Option<Crc64Nvme>,
}

/// A copy is whole.
#[derive(Debug)]
pub struct FinishCopy {
    /// The digests of the source, as far as they are proven.
    pub digests: Digests,
    /// What proves the copy: its parts must have the MD5s of which this is made. `None`: each part was compared with bytes of the
    /// source, by this stream.
    pub composite: Option<CompositeMd5>,
}

/// Receives the progress of a stream. The stream never waits for it.
#[derive(Debug)]
pub struct Observer {
    /// Receives the upload after it was opened. If its receiver is dropped earlier, the upload is not opened.
    pub opened: oneshot::Sender<Upload>,
    /// Receives the latest progress.
    pub counts: watch::Sender<Counts>,
    /// Cancelled shortly before the stream ends because of its age: its sender resumes over another connection.
    pub moves_on: CancellationToken,
}

/// The progress of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// The end of the committed prefix, in bytes.
    pub committed_size: u64,
    /// The end of the received bytes, in bytes.
    pub received_size: u64,
    /// Whether the commit has started.
    pub committing: bool,
    /// The resume token of the committed prefix. Empty once the upload is finished.
    pub resume_token: Arc<str>,
}

// === impl Observer ===

impl Observer {
    /// An observer that does not move its sender.
    pub fn new(opened: oneshot::Sender<Upload>, counts: watch::Sender<Counts>) -> Self {
        Self {
            opened,
            counts,
            moves_on: CancellationToken::new(),
        }
    }
}

// === impl Open ===

impl Open {
    /// The promised MD5 of the whole file, if the message names a file that has one.
    pub(super) fn promised_md5(&self) -> Option<Md5> {
        let file = match &self.target {
            Target::File { file, .. } => file,
            Target::Copy { file, .. } => file,
            Target::Upload(_) => return None,
        };
        file.file_id.as_deref()?.parse().ok()
    }

    /// What the store of a copy can read by itself.
    pub(super) fn copy_from(&self) -> Option<Arc<CopyFrom>> {
        match &self.target {
            Target::Copy { from, .. } => from.clone(),
            Target::File { .. } | Target::Upload(_) => None,
        }
    }
}

// === impl Chunk ===

impl Chunk {
    /// Bytes that are sent to a client, with their CRC32C.
    pub fn sent(offset: u64, data: Bytes) -> Self {
        let crc32c = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &data);
        Self {
            offset,
            data,
            crc32c: u32::try_from(crc32c).ok(),
        }
    }

    /// Checks the bytes against their CRC32C, if there is one.
    pub(super) fn check(&self) -> Result<()> {
        check(self.crc32c, || {
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &self.data)
        })
    }
}

// === impl ChunkEnd ===

impl ChunkEnd {
    /// Checks the CRC32C of all pieces, if there is one.
    pub(super) fn check(&self, found: u64) -> Result<()> {
        check(self.crc32c, || found)
    }
}

fn check(expected: Option<u32>, found: impl FnOnce() -> u64) -> Result<()> {
    match expected {
        Some(expected) if found() != u64::from(expected) => Err(Error::new(
            Kind::DataLoss,
            Reason::ChecksumMismatch,
            "the CRC32C of a chunk does not match its data; resume",
        )),
        _ => Ok(()),
    }
}
