//! The file that is sent. Several senders read it, never on the async workers. Each read notices if the file has changed.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::{
    digest::{Crc64Nvme, Md5, Md5Hasher},
    error::ClientError,
    stamp::Stamp,
};

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

/// A file, with the size and the modification time that it had at first.
#[derive(Debug, Clone)]
pub(super) struct LocalFile {
    file: Arc<Mutex<File>>,
    stamp: Stamp,
}

// === impl LocalFile ===

impl LocalFile {
    pub(super) async fn new(file: File) -> Result<Self, ClientError> {
        blocking(move || {
            let stamp = Stamp::of(&file.metadata()?);
            let file = Arc::new(Mutex::new(file));
            Ok(Self { file, stamp })
        })
        .await
    }

    /// The size and the modification time that it had at first.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The whole file.
    pub(super) fn span(&self) -> Span {
        Span {
            offset: 0,
            size: self.stamp.size,
        }
    }

    /// The MD5 and the CRC-64 of a range.
    pub(super) async fn digests(&self, span: Span) -> Result<(Md5, Crc64Nvme), ClientError> {
        let file = self.clone();
        blocking(move || {
            let (mut md5, mut crc64) = (Md5Hasher::default(), Crc64Nvme::of(b""));
            let mut bytes = Vec::new();
            let end = span.offset + span.size;
            let mut offset = span.offset;
            while offset < end {
                let size = READ_SIZE.min(end - offset);
                file.read_into(&mut bytes, Span { offset, size })?;
                md5.update(&bytes);
                crc64 = crc64.extend(&bytes);
                offset += size;
            }
            Ok((md5.finish(), crc64))
        })
        .await
    }

    /// The bytes of a range.
    pub(super) async fn read(&self, span: Span) -> Result<Bytes, ClientError> {
        let file = self.clone();
        blocking(move || {
            let mut bytes = Vec::new();
            file.read_into(&mut bytes, span)?;
            Ok(bytes.into())
        })
        .await
    }

    /// Checks that the file is as it was at first, and ends at its size.
    ///
    /// # Errors
    /// `FileChanged`.
    pub(super) async fn check_unchanged(&self) -> Result<(), ClientError> {
        let Self { file, stamp } = self.clone();
        blocking(move || {
            let mut file = lock(&file);
            stamp.check(&file.metadata()?)?;
            file.seek(SeekFrom::Start(stamp.size))?;
            let beyond = file.read(&mut [0])? as u64;
            stamp.check_end(stamp.size + beyond)
        })
        .await
    }

    fn read_into(&self, bytes: &mut Vec<u8>, span: Span) -> Result<(), ClientError> {
        bytes.resize(usize::try_from(span.size).unwrap_or(usize::MAX), 0);
        let mut file = lock(&self.file);
        file.seek(SeekFrom::Start(span.offset))?;
        let read = file.read_exact(bytes);
        self.stamp.check(&file.metadata()?)?;
        match read {
            // It ends before its size.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.stamp.check_end(span.offset)
            }
            read => Ok(read?),
        }
    }
}

fn lock(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
