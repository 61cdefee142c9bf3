//! What a stream consists of, and what its sender is told.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{FileMetadata, Md5, Upload, UploadId},
};

/// One message of a stream.
#[derive(Debug)]
pub enum Message {
    /// The first, and only the first.
    Open(Open),
    /// Bytes of the file, in order.
    Chunk(Chunk),
    /// The last: the file is whole.
    Finish(Finish),
}

/// Begins a new upload or opens a known one.
#[derive(Debug)]
pub struct Open {
    /// Which.
    pub target: Target,
    /// The newest resume token of that upload; empty for none.
    pub resume_token: String,
    /// Whether to give up the open upload that the same create finds.
    pub restart: bool,
    /// What becomes of a stream that is at work on it.
    pub takeover: Takeover,
}

/// What becomes of a stream that is at work on an upload when another one opens it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Takeover {
    /// It ends.
    #[default]
    Force,
    /// It goes on, and the other one is refused.
    Forbid,
}

/// What a stream writes to.
#[derive(Debug)]
pub enum Target {
    /// A file to create an upload for.
    File {
        /// The file.
        file: FileMetadata,
        /// The storage; empty for the default one.
        storage_id: String,
    },
    /// An upload to go on with.
    Upload(UploadId),
}

/// Bytes of the file.
#[derive(Debug)]
pub struct Chunk {
    /// Where they begin in the file.
    pub offset: u64,
    /// The bytes; empty for a keep-alive.
    pub data: Bytes,
    /// Their CRC32C, where the sender gives it.
    pub crc32c: Option<u32>,
}

/// The file is whole.
#[derive(Debug)]
pub struct Finish {
    /// Its size in bytes, where the sender gives it.
    pub file_size: Option<u64>,
    /// Its MD5, where the sender gives it.
    pub file_id: Option<Md5>,
}

/// Who is told how a stream goes on. Never waited for.
#[derive(Debug)]
pub struct Observer {
    /// Gets the upload as it was opened; where its receiver has gone before, the upload is not opened.
    pub opened: oneshot::Sender<Upload>,
    /// Gets the latest counts.
    pub counts: watch::Sender<Counts>,
}

/// How far a stream has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// The end of the committed prefix in bytes.
    pub committed_size: u64,
    /// The end of what was received, in bytes.
    pub received_size: u64,
    /// Whether the commit has begun.
    pub committing: bool,
    /// The resume token of the committed prefix; empty once the upload is finished.
    pub resume_token: Arc<str>,
}

// === impl Open ===

impl Open {
    /// The MD5 of the whole file that is promised, where a file is named.
    pub(super) fn promised_md5(&self) -> Option<Md5> {
        match &self.target {
            Target::File { file, .. } => file.file_id.as_deref()?.parse().ok(),
            Target::Upload(_) => None,
        }
    }
}

// === impl Chunk ===

impl Chunk {
    /// Compares the bytes with their CRC32C, where there is one.
    pub(super) fn check(&self) -> Result<()> {
        let found = || crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &self.data);
        match self.crc32c {
            Some(expected) if found() != u64::from(expected) => Err(Error::new(
                Kind::DataLoss,
                Reason::ChecksumMismatch,
                "a chunk's CRC32C is not that of its data; resume",
            )),
            _ => Ok(()),
        }
    }
}
