//! Where the bytes of an upload come from, and how they are read again after a failure.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, SeekFrom},
    path::Path,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt},
    time::Instant,
};

use crate::{
    digest::{Digests, Hasher},
    error::ClientError,
    proto::v1::FileDigest,
    stamp::Stamp,
    upload::UploadOptions,
};

/// The maximum number of bytes of a pipe that are kept to be sent again: two of the largest parts of a file of unknown
/// size. One part must fit while another one is not committed yet.
const MAX_KEPT: u64 = 128 * 1024 * 1024;

/// A source that takes longer for its next bytes has paused.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes that can be read from any offset. Implemented for all types that can be read and can seek.
///
/// # Examples
/// ```
/// use std::io::Cursor;
/// use upload_gateway_client::ReadSeek;
///
/// let in_memory: Box<dyn ReadSeek> = Box::new(Cursor::new(b"hello"));
/// ```
pub trait ReadSeek: AsyncRead + AsyncSeek + Send + Unpin {}

impl<T: AsyncRead + AsyncSeek + Send + Unpin> ReadSeek for T {}

/// Where the bytes of an upload come from.
///
/// # Examples
/// ```
/// use std::io::Cursor;
/// use upload_gateway_client::Source;
///
/// # async fn example() -> std::io::Result<()> {
/// let file = Source::open("report.pdf").await?;
/// # Ok(())
/// # }
/// let bytes = Source::seekable(Cursor::new(b"hello"));
/// let pipe = Source::pipe(tokio::io::empty());
/// ```
pub enum Source {
    /// A regular file. It must not change while it is sent.
    File(SourceFile),
    /// Bytes that can be read again. The upload does not notice if they change.
    Seekable(Box<dyn ReadSeek>),
    /// Bytes that can be read once. Those that are not committed yet are kept in memory: at most 128 MiB, or two parts.
    Pipe(Box<dyn AsyncRead + Send + Unpin>),
}

/// A regular file with the size and the modification time that it had at first.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    stamp: Stamp,
}

/// Reads a source in chunks, and computes its MD5.
pub(super) struct SourceReader {
    source: Source,
    chunk_size: usize,
    /// The offset of the next chunk.
    next: u64,
    /// The beginning of the next chunk, as far as it was read.
    partial: BytesMut,
    at_end: bool,
    hasher: Option<Hasher>,
    /// The number of bytes that were hashed.
    hashed: u64,
    /// The chunks of a pipe that were returned and are not committed: its bytes from `kept_from` to `kept_to`.
    kept: VecDeque<Bytes>,
    kept_from: u64,
    kept_to: u64,
}

// === impl Source ===

impl Source {
    /// The regular file at `path`.
    ///
    /// # Errors
    /// The file cannot be opened, or its size and modification time cannot be read.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::file(File::open(path).await?).await
    }

    /// A regular file, from its beginning. If it changes before all of it is sent, the upload fails.
    ///
    /// # Errors
    /// The file's size and modification time cannot be read.
    pub async fn file(file: File) -> io::Result<Self> {
        let stamp = Stamp::of(&file.metadata().await?);
        Ok(Self::File(SourceFile { file, stamp }))
    }

    /// A source that can be read again.
    pub fn seekable(input: impl ReadSeek + 'static) -> Self {
        Self::Seekable(Box::new(input))
    }

    /// A source that can be read once.
    pub fn pipe(input: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::Pipe(Box::new(input))
    }

    /// The size of a file in bytes. `None`: not known before the end.
    pub fn size(&self) -> Option<u64> {
        self.stamp().map(|stamp| stamp.size)
    }

    /// The size and the modification time of a file.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::File(local) => Some(local.stamp),
            Self::Seekable(_) | Self::Pipe(_) => None,
        }
    }

    /// Reads the next bytes from the source itself. 0 at the end.
    async fn read(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::File(local) => local.file.read_buf(bytes).await,
            Self::Seekable(input) => input.read_buf(bytes).await,
            Self::Pipe(input) => input.read_buf(bytes).await,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File(_) => "File",
            Self::Seekable(_) => "Seekable",
            Self::Pipe(_) => "Pipe",
        })
    }
}

// === impl SourceReader ===

impl SourceReader {
    pub(super) fn new(source: Source, options: &UploadOptions) -> Self {
        // At least one chunk per second: the gateway ends streams that are silent for too long.
        let per_second = options.limit_rate.map_or(usize::MAX, |rate| {
            usize::try_from(rate).unwrap_or(usize::MAX)
        });
        Self {
            source,
            chunk_size: options.chunk_size.min(per_second).max(1),
            next: 0,
            partial: BytesMut::new(),
            at_end: false,
            hasher: options.digest.then(Hasher::both),
            hashed: 0,
            kept: VecDeque::new(),
            kept_from: 0,
            kept_to: 0,
        }
    }

    /// The offset of the next chunk.
    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// The size of a file. None: not known before the end.
    pub(super) fn size(&self) -> Option<u64> {
        self.source.size()
    }

    /// Reads the next `size` bytes and returns their digests. None: the source has fewer. Those of a pipe are not kept.
    pub(super) async fn next_digests(&mut self, size: u64) -> Result<Option<Digests>, ClientError> {
        let mut hasher = Hasher::both();
        let end = self.next.saturating_add(size);
        while self.next < end {
            let missing = usize::try_from(end - self.next).unwrap_or(usize::MAX);
            let Some(chunk) = self.take(missing.min(self.chunk_size)).await? else {
                return Ok(None);
            };
            hasher.update(&chunk);
            self.release(self.next);
        }
        Ok(Some(hasher.finish()))
    }

    /// Hashes from now on only for the digest that the gateway computes.
    pub(super) fn keep_digest(&mut self, computed: FileDigest) {
        if let Some(hasher) = &mut self.hasher {
            hasher.keep(computed);
        }
    }

    /// Continues at `offset`. Bytes before it that were never hashed are read and hashed now.
    ///
    /// # Errors
    /// `NotRewindable` if the bytes of a pipe are no longer kept.
    pub(super) async fn seek(&mut self, offset: u64) -> Result<(), ClientError> {
        let begin = match self.hasher {
            Some(_) => offset.min(self.hashed),
            None => offset,
        };
        match &mut self.source {
            Source::File(local) => {
                local.file.seek(SeekFrom::Start(begin)).await?;
                self.restart_at(begin);
            }
            Source::Seekable(input) => {
                input.seek(SeekFrom::Start(begin)).await?;
                self.restart_at(begin);
            }
            Source::Pipe(_) => {
                if offset < self.kept_from {
                    return Err(ClientError::NotRewindable {
                        wanted: offset,
                        kept_from: self.kept_from,
                    });
                }
                self.next = offset.min(self.kept_to);
            }
        }
        while self.next < offset {
            let missing = usize::try_from(offset - self.next).unwrap_or(usize::MAX);
            if self.take(missing.min(self.chunk_size)).await?.is_none() {
                // The source is shorter than the committed size: another file. The gateway refuses the finish.
                break;
            }
            self.release(self.next);
        }
        Ok(())
    }

    /// The source was sought to `offset`.
    fn restart_at(&mut self, offset: u64) {
        self.partial.clear();
        self.at_end = false;
        self.next = offset;
    }

    /// The offset and the bytes of the next chunk. None at the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Bytes)>, ClientError> {
        let offset = self.next;
        let chunk = self.take(self.chunk_size).await?;
        Ok(chunk.map(|chunk| (offset, chunk)))
    }

    /// Waits for the next bytes. True: the source took longer than [`PAUSE`].
    pub(super) async fn has_paused(&mut self) -> Result<bool, ClientError> {
        let begin = Instant::now();
        self.next().await?;
        Ok(begin.elapsed() >= PAUSE)
    }

    /// Frees the kept bytes of a pipe before `committed_size`.
    pub(super) fn release(&mut self, committed_size: u64) {
        while let Some(first) = self.kept.front() {
            let end = self.kept_from + first.len() as u64;
            if end > committed_size {
                return;
            }
            self.kept_from = end;
            self.kept.pop_front();
        }
    }

    /// Whether some of a pipe must be committed before more of it is read.
    pub(super) fn is_full(&self, part_size: u64) -> bool {
        self.next == self.kept_to && self.kept_to - self.kept_from >= MAX_KEPT.max(2 * part_size)
    }

    /// Reads to the end. Returns the size of the source, and its digests.
    pub(super) async fn finish(&mut self) -> Result<(u64, Digests), ClientError> {
        while self.take(self.chunk_size).await?.is_some() {
            self.release(self.next);
        }
        let digests = self.hasher.clone().map(Hasher::finish);
        Ok((self.next, digests.unwrap_or_default()))
    }

    async fn take(&mut self, max_size: usize) -> Result<Option<Bytes>, ClientError> {
        let chunk = if self.next < self.kept_to {
            self.kept_chunk(max_size)
        } else {
            let chunk = self.read(max_size).await?;
            if matches!(self.source, Source::Pipe(_)) && !chunk.is_empty() {
                self.kept_to += chunk.len() as u64;
                self.kept.push_back(chunk.clone());
            }
            chunk
        };
        if chunk.is_empty() {
            return Ok(None);
        }
        self.hash(&chunk);
        self.next += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// The kept bytes at `next`.
    fn kept_chunk(&self, max_size: usize) -> Bytes {
        let mut begin = self.kept_from;
        for chunk in &self.kept {
            let end = begin + chunk.len() as u64;
            if self.next < end {
                let skip = usize::try_from(self.next - begin).expect("less than a chunk");
                return chunk.slice(skip..chunk.len().min(skip.saturating_add(max_size)));
            }
            begin = end;
        }
        Bytes::new()
    }

    async fn read(&mut self, max_size: usize) -> Result<Bytes, ClientError> {
        while self.partial.len() < max_size && !self.at_end {
            self.partial.reserve(max_size - self.partial.len());
            let count = self.source.read(&mut self.partial).await?;
            self.check_unchanged(count == 0).await?;
            self.at_end = count == 0;
        }
        let length = max_size.min(self.partial.len());
        Ok(self.partial.split_to(length).freeze())
    }

    /// Checks that a file has not grown and, at its end, that it is as it was at first.
    async fn check_unchanged(&mut self, at_end: bool) -> Result<(), ClientError> {
        let Source::File(SourceFile { file, stamp }) = &self.source else {
            return Ok(());
        };
        let read_to = self.next + self.partial.len() as u64;
        if at_end {
            stamp.check(&file.metadata().await?)?;
        }
        if at_end || read_to > stamp.size {
            stamp.check_end(read_to)?;
        }
        Ok(())
    }

    /// Hashes the bytes of the chunk at `next` that were not hashed before.
    fn hash(&mut self, chunk: &Bytes) {
        let end = self.next + chunk.len() as u64;
        if let Some(hasher) = &mut self.hasher
            && end > self.hashed
        {
            let unhashed = usize::try_from(end - self.hashed).expect("at most a chunk");
            hasher.update(&chunk[chunk.len() - unhashed..]);
            self.hashed = end;
        }
    }
}

impl fmt::Debug for SourceReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SourceReader")
            .field("source", &self.source)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::digest::Crc64Nvme;
    use crate::digest::Md5;

    fn options() -> UploadOptions {
        UploadOptions {
            chunk_size: 10,
            ..UploadOptions::default()
        }
    }

    fn bytes() -> Vec<u8> {
        (0..95).collect()
    }

    async fn rest(reader: &mut SourceReader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((_, chunk)) = reader.next().await.unwrap() {
            all.extend(chunk);
        }
        all
    }

    #[tokio::test]
    async fn files_and_pipes_seek_back_and_keep_their_digest() {
        for source in [
            Source::seekable(Cursor::new(bytes())),
            Source::pipe(Cursor::new(bytes())),
        ] {
            let mut reader = SourceReader::new(source, &options());
            reader.seek(0).await.unwrap();
            for _ in 0..5 {
                reader.next().await.unwrap();
            }
            reader.release(20);
            reader.seek(23).await.unwrap();
            let (offset, chunk) = reader.next().await.unwrap().unwrap();
            assert_eq!((offset, chunk[0]), (23, 23));
            reader.seek(23).await.unwrap();
            assert_eq!(rest(&mut reader).await, bytes()[23..]);
            let (size, digests) = reader.finish().await.unwrap();
            assert_eq!((size, digests.md5), (95, Some(Md5::of(&bytes()))));
            assert_eq!(digests.crc64nvme, Some(Crc64Nvme::of(&bytes())));
        }
    }

    #[tokio::test]
    async fn a_resume_in_a_new_process_hashes_the_bytes_that_it_skips() {
        for source in [
            Source::seekable(Cursor::new(bytes())),
            Source::pipe(Cursor::new(bytes())),
        ] {
            let mut reader = SourceReader::new(source, &options());
            reader.seek(42).await.unwrap();
            assert_eq!(rest(&mut reader).await, bytes()[42..]);
            let digests = reader.finish().await.unwrap().1;
            assert_eq!(digests.md5, Some(Md5::of(&bytes())));
        }
    }

    #[tokio::test]
    async fn a_pipe_cannot_seek_back_to_committed_bytes() {
        let mut reader = SourceReader::new(Source::pipe(Cursor::new(bytes())), &options());
        for _ in 0..4 {
            reader.next().await.unwrap();
        }
        reader.release(20);
        assert!(matches!(
            reader.seek(19).await,
            Err(ClientError::NotRewindable {
                wanted: 19,
                kept_from: 20
            })
        ));
    }
}
