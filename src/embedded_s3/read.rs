//! Response bodies, read from the files of parts.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use bytes::Bytes;
use s3s::dto::StreamingBlob;
use tokio::task::spawn_blocking;

/// How many bytes are read at a time; a download holds no more in memory.
const PIECE_SIZE: u64 = 64 << 10;

/// A range of bytes in one file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) length: u64,
}

struct Reader {
    segments: VecDeque<Segment>,
    open: Option<(File, u64)>,
}

/// The bytes of all segments in order. The stream ends with an error at a file that does not exist or is too short.
pub(super) fn stream(segments: Vec<Segment>) -> StreamingBlob {
    let reader = Reader {
        segments: segments.into(),
        open: None,
    };
    StreamingBlob::wrap(futures::stream::try_unfold(reader, |reader| async move {
        spawn_blocking(move || reader.next())
            .await
            .map_err(io::Error::other)?
    }))
}

// === impl Reader ===

impl Reader {
    fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        loop {
            if let Some((file, left)) = &mut self.open
                && *left > 0
            {
                let size = PIECE_SIZE.min(*left);
                let mut piece = vec![0; usize::try_from(size).map_err(io::Error::other)?];
                file.read_exact(&mut piece)?;
                *left -= size;
                return Ok(Some((piece.into(), self)));
            }
            let Some(segment) = self.segments.pop_front() else {
                return Ok(None);
            };
            let mut file = File::open(&segment.path)?;
            file.seek(SeekFrom::Start(segment.offset))?;
            self.open = Some((file, segment.length));
        }
    }
}
