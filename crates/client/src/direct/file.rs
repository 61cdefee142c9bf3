//! The file that is sent: read in several places at once, never on the async workers.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::digest::{FileDigest, Md5};

/// The bytes that are read at once for a digest.
const PIECE: u64 = 1024 * 1024;

/// A range of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Where it begins, in bytes.
    pub(super) offset: u64,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// A file of the size it had when it was opened.
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

    /// The whole of it.
    pub(super) fn span(&self) -> Span {
        Span {
            offset: 0,
            size: self.size,
        }
    }

    /// The MD5 of a stretch.
    pub(super) async fn digest(&self, span: Span) -> io::Result<Md5> {
        let file = self.clone();
        blocking(move || {
            let mut digest = FileDigest::default();
            let mut piece = Vec::new();
            let end = span.offset + span.size;
            let mut offset = span.offset;
            while offset < end {
                let size = PIECE.min(end - offset);
                file.read_into(&mut piece, Span { offset, size })?;
                digest.update(&piece);
                offset += size;
            }
            Ok(digest.finish())
        })
        .await
    }

    /// The bytes of a stretch.
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
