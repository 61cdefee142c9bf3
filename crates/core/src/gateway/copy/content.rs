//! The bytes of the source of a copy, as chunks.

use std::ops::Range;

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream, stream::BoxStream};

use crate::{
    error::{Error, Result},
    gateway::{
        download::{Downloads, StoredFile},
        message::Chunk,
    },
};

/// The bytes of a source that the copy does not have yet.
struct Content<'a> {
    downloads: &'a Downloads,
    file: &'a StoredFile,
    left: Range<u64>,
    /// The bytes of the last request, as far as they were read.
    read: Option<BoxStream<'static, Result<Bytes>>>,
    /// Whether the last request has returned bytes.
    has_moved: bool,
}

/// The bytes of the file after `from`.
pub(super) fn chunks<'a>(
    downloads: &'a Downloads,
    file: &'a StoredFile,
    from: u64,
) -> impl Stream<Item = Result<Chunk>> + Send + 'a {
    let content = Content {
        downloads,
        file,
        left: from..file.object.size,
        read: None,
        has_moved: true,
    };
    stream::try_unfold(content, Content::next)
}

// === impl Content ===

impl Content<'_> {
    /// The next bytes. After a failure that may be temporary, they are requested again, if the last request has returned any.
    async fn next(mut self) -> Result<Option<(Chunk, Self)>> {
        while !self.left.is_empty() {
            match self.receive().await {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    let offset = self.left.start;
                    self.left.start += data.len() as u64;
                    self.has_moved = true;
                    let chunk = Chunk {
                        offset,
                        data,
                        crc32c: None,
                    };
                    return Ok(Some((chunk, self)));
                }
                Err(error) if self.has_moved && error.is_retryable() => {
                    tracing::debug!(%error, "the source of a copy is read again");
                    (self.read, self.has_moved) = (None, false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<Bytes> {
        let read = match &mut self.read {
            Some(read) => read,
            None => {
                let read = self.downloads.read(self.file, self.left.clone()).await?;
                self.read.insert(read)
            }
        };
        let next = read.try_next().await?;
        next.ok_or_else(|| Error::store_unavailable("the object ended before its size"))
    }
}
