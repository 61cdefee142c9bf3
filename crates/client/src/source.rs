//! Where the bytes come from, and how they are read again after a failure.

use std::{collections::VecDeque, fmt, io::SeekFrom, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt},
    time::Instant,
};

use super::{
    ClientError, UploadOptions,
    digest::{FileDigest, Md5},
};

/// The most bytes of a pipe that are kept to be sent again: two of the largest parts a file of unknown length is cut
/// into, so that one can always be filled.
const KEPT: u64 = 128 * 1024 * 1024;

/// A source that takes longer for its next bytes has paused.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes that can be read from any place.
pub trait ReadSeek: AsyncRead + AsyncSeek + Send + Unpin {}

impl<T: AsyncRead + AsyncSeek + Send + Unpin> ReadSeek for T {}

/// Where the bytes of an upload come from.
pub enum Source {
    /// Bytes that can be read again: a file.
    Seekable(Box<dyn ReadSeek>),
    /// Bytes that are read once: what is not committed yet is kept in memory, at most 128 MiB or two parts.
    Pipe(Box<dyn AsyncRead + Send + Unpin>),
}

/// A source, how far it is read, and the digest of what was read.
pub(super) struct SourceReader {
    source: Source,
    chunk_size: usize,
    /// Where the next chunk begins.
    next: u64,
    /// Read from the source and not handed out.
    partial: BytesMut,
    at_end: bool,
    digest: Option<FileDigest>,
    /// How far the digest reaches.
    hashed: u64,
    /// Of a pipe: chunks handed out that are not committed, the first of which begins at `kept_from`.
    kept: VecDeque<Bytes>,
    kept_from: u64,
    /// Of a pipe: where `kept` ends and the unread begins.
    kept_to: u64,
}

// === impl Source ===

impl Source {
    /// A source that can be read from any place.
    pub fn seekable(input: impl ReadSeek + 'static) -> Self {
        Self::Seekable(Box::new(input))
    }

    /// A source that can be read once.
    pub fn pipe(input: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::Pipe(Box::new(input))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Seekable(_) => "Seekable",
            Self::Pipe(_) => "Pipe",
        })
    }
}

// === impl SourceReader ===

impl SourceReader {
    pub(super) fn new(source: Source, options: &UploadOptions) -> Self {
        // A chunk a second at the least: the gateway takes long silence for a lost sender.
        let slowest = options.limit_rate.map_or(usize::MAX, |rate| {
            usize::try_from(rate).unwrap_or(usize::MAX)
        });
        Self {
            source,
            chunk_size: options.chunk_size.min(slowest).max(1),
            next: 0,
            partial: BytesMut::new(),
            at_end: false,
            digest: options.digest.then(FileDigest::default),
            hashed: 0,
            kept: VecDeque::new(),
            kept_from: 0,
            kept_to: 0,
        }
    }

    /// Where the next chunk begins.
    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// Goes to `offset`. What lies before it and was never read is read now, for the digest.
    pub(super) async fn seek(&mut self, offset: u64) -> Result<(), ClientError> {
        match &mut self.source {
            Source::Seekable(input) => {
                let begin = match self.digest {
                    Some(_) => offset.min(self.hashed),
                    None => offset,
                };
                input.seek(SeekFrom::Start(begin)).await?;
                self.partial.clear();
                self.at_end = false;
                self.next = begin;
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
                // Shorter than what is committed: another file. The gateway will say so.
                break;
            }
            self.release(self.next);
        }
        Ok(())
    }

    /// The next chunk and where it begins; None at the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Bytes)>, ClientError> {
        let offset = self.next;
        let chunk = self.take(self.chunk_size).await?;
        Ok(chunk.map(|chunk| (offset, chunk)))
    }

    /// Waits until there is more to send, and says whether that was worth mentioning.
    pub(super) async fn has_paused(&mut self) -> Result<bool, ClientError> {
        let asked = Instant::now();
        self.next().await?;
        Ok(asked.elapsed() >= PAUSE)
    }

    /// Forgets what is kept of a pipe up to `committed_size`.
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

    /// Whether no more of a pipe may be kept before something is committed.
    pub(super) fn is_full(&self, part_size: u64) -> bool {
        self.next == self.kept_to && self.kept_to - self.kept_from >= KEPT.max(2 * part_size)
    }

    /// Reads to the end, and says how long the source is and what its digest.
    pub(super) async fn finish(&mut self) -> Result<(u64, Option<Md5>), ClientError> {
        while self.take(self.chunk_size).await?.is_some() {
            self.release(self.next);
        }
        let digest = self.digest.clone().map(FileDigest::finish);
        Ok((self.next, digest))
    }

    async fn take(&mut self, most: usize) -> Result<Option<Bytes>, ClientError> {
        let chunk = if self.next < self.kept_to {
            self.kept_chunk(most)
        } else {
            let chunk = self.read(most).await?;
            if matches!(self.source, Source::Pipe(_)) && !chunk.is_empty() {
                self.kept_to += chunk.len() as u64;
                self.kept.push_back(chunk.clone());
            }
            chunk
        };
        if chunk.is_empty() {
            return Ok(None);
        }
        self.absorb(&chunk);
        self.next += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// The bytes at `next` out of what is kept.
    fn kept_chunk(&self, most: usize) -> Bytes {
        let mut begin = self.kept_from;
        for chunk in &self.kept {
            let end = begin + chunk.len() as u64;
            if self.next < end {
                let skip = usize::try_from(self.next - begin).expect("less than a chunk");
                return chunk.slice(skip..chunk.len().min(skip.saturating_add(most)));
            }
            begin = end;
        }
        Bytes::new()
    }

    async fn read(&mut self, most: usize) -> Result<Bytes, ClientError> {
        while self.partial.len() < most && !self.at_end {
            self.partial.reserve(most - self.partial.len());
            let count = match &mut self.source {
                Source::Seekable(input) => input.read_buf(&mut self.partial).await?,
                Source::Pipe(input) => input.read_buf(&mut self.partial).await?,
            };
            self.at_end = count == 0;
        }
        let length = most.min(self.partial.len());
        Ok(self.partial.split_to(length).freeze())
    }

    /// Adds what the digest has not seen yet of a chunk that begins at `next`.
    fn absorb(&mut self, chunk: &Bytes) {
        let end = self.next + chunk.len() as u64;
        if let Some(digest) = &mut self.digest
            && end > self.hashed
        {
            let fresh = usize::try_from(end - self.hashed).expect("at most a chunk");
            digest.update(&chunk[chunk.len() - fresh..]);
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
    use crate::proto::v1::Takeover;

    const OPTIONS: UploadOptions = UploadOptions {
        chunk_size: 10,
        limit_rate: None,
        digest: true,
        retry_timeout: Duration::from_secs(1),
        takeover: Takeover::Force,
    };

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
    async fn a_file_and_a_pipe_go_back_and_keep_their_digest() {
        for source in [
            Source::seekable(Cursor::new(bytes())),
            Source::pipe(Cursor::new(bytes())),
        ] {
            let mut reader = SourceReader::new(source, &OPTIONS);
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
            assert_eq!(
                reader.finish().await.unwrap(),
                (95, Some(Md5::of(&bytes())))
            );
        }
    }

    #[tokio::test]
    async fn a_resume_in_a_new_process_digests_what_it_skips() {
        for source in [
            Source::seekable(Cursor::new(bytes())),
            Source::pipe(Cursor::new(bytes())),
        ] {
            let mut reader = SourceReader::new(source, &OPTIONS);
            reader.seek(42).await.unwrap();
            assert_eq!(rest(&mut reader).await, bytes()[42..]);
            assert_eq!(reader.finish().await.unwrap().1, Some(Md5::of(&bytes())));
        }
    }

    #[tokio::test]
    async fn a_pipe_cannot_go_back_behind_what_is_committed() {
        let mut reader = SourceReader::new(Source::pipe(Cursor::new(bytes())), &OPTIONS);
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
