//! The file that is sent. Several senders read it, never on the async workers.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::digest::{Hasher, Md5};

/// The bytes that are read at once to hash them.
const READ_SIZE: u64 = 1024 * 1024;

/// A range of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Its offset in bytes.
    pub(super) offset: u64,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// A file, with the size that it had at the beginning.
#[derive(Debug, Clone)]
pub(super) struct LocalFile {
    file: Arc<Mutex<File>>,
    size: u64,
}

// === impl LocalFile ===

impl LocalFile {
    pub(super) async fn new(file: File) -> io::Result<Self> {
        blocking(move || {
            let size = file.metadata()?.len();
            let file = Arc::new(Mutex::new(file));
            Ok(Self { file, size })
        })
        .await
    }

    /// The whole file.
    pub(super) fn span(&self) -> Span {
        Span {
            offset: 0,
            size: self.size,
        }
    }

    /// The MD5 of a range.
    pub(super) async fn digest(&self, span: Span) -> io::Result<Md5> {
        let file = self.clone();
        blocking(move || {
            let mut hasher = Hasher::default();
            let mut bytes = Vec::new();
            let end = span.offset + span.size;
            let mut offset = span.offset;
            while offset < end {
                let size = READ_SIZE.min(end - offset);
                file.read_into(&mut bytes, Span { offset, size })?;
                hasher.update(&bytes);
                offset += size;
            }
            Ok(hasher.finish())
        })
        .await
    }

    /// The bytes of a range.
    pub(super) async fn read(&self, span: Span) -> io::Result<Bytes> {
        let file = self.clone();
        blocking(move || {
            let mut bytes = Vec::new();
            file.read_into(&mut bytes, span)?;
            Ok(bytes.into())
        })
        .await
    }

    fn read_into(&self, bytes: &mut Vec<u8>, span: Span) -> io::Result<()> {
        bytes.resize(usize::try_from(span.size).unwrap_or(usize::MAX), 0);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(span.offset))?;
        file.read_exact(bytes)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
