//! Ends a stream after the number of bytes that its sender asks for.

use futures::{Stream, StreamExt, stream};

use super::plan::Plan;
use crate::{
    call,
    error::{Error, Kind, Reason, Result},
    gateway::{Chunk, ChunkEnd, Message},
};

/// Where the stream is, while it is not cut.
#[derive(Debug)]
struct Position {
    /// After how many chunk bytes it is cut.
    left: u64,
    /// Where the chunk that is arriving in pieces begins.
    begin: u64,
    /// Where the bytes that have arrived end.
    end: u64,
}

/// The messages of the running call. If its plan cuts the stream, an `Unavailable` error follows the given number of
/// chunk bytes. Messages that the client sends later can still be read, and are to be discarded.
pub fn cut(
    messages: impl Stream<Item = Result<Message>> + Unpin + Send,
) -> impl Stream<Item = Result<Message>> + Unpin + Send {
    let cut_after = call::current::<Plan>().and_then(|plan| plan.cut_after());
    let Some(left) = cut_after else {
        return messages.left_stream();
    };
    let (begin, end) = (0, 0);
    let mut position = Some(Position { left, begin, end });
    let cut = messages.flat_map(move |message| {
        let passed = message.map(|message| match &mut position {
            Some(at) => at.pass(message),
            None => (vec![message], false),
        });
        let (messages, is_cut) = match passed {
            Ok((messages, is_cut)) => (messages.into_iter().map(Ok).collect(), is_cut),
            Err(error) => (vec![Err(error)], false),
        };
        position.take_if(|_| is_cut);
        stream::iter(messages.into_iter().chain(is_cut.then(|| Err(injected()))))
    });
    cut.right_stream()
}

// === impl Position ===

impl Position {
    /// What is passed on of a message, and whether the stream is cut after it.
    fn pass(&mut self, message: Message) -> (Vec<Message>, bool) {
        match message {
            Message::Chunk(chunk) => {
                let size = chunk.data.len() as u64;
                self.begin = chunk.offset.saturating_add(size);
                self.end = self.begin;
                if size >= self.left {
                    return (vec![Message::Chunk(head(chunk, self.left))], true);
                }
                self.left -= size;
                (vec![Message::Chunk(chunk)], false)
            }
            Message::Piece(mut piece) => {
                let size = piece.len() as u64;
                if size >= self.left {
                    piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                    // The checksum covers the whole chunk.
                    let (offset, crc32c) = (self.begin, None);
                    let end = Message::ChunkEnd(ChunkEnd { offset, crc32c });
                    return (vec![Message::Piece(piece), end], true);
                }
                (self.left, self.end) = (self.left - size, self.end + size);
                (vec![Message::Piece(piece)], false)
            }
            Message::ChunkEnd(_) => {
                self.begin = self.end;
                (vec![message], false)
            }
            Message::Void => {
                self.left += self.end - self.begin;
                self.end = self.begin;
                (vec![message], false)
            }
            _ => (vec![message], false),
        }
    }
}

/// The first `size` bytes of a chunk that has at least `size` bytes.
fn head(chunk: Chunk, size: u64) -> Chunk {
    let whole = chunk.data.len() as u64 == size;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    Chunk {
        data: chunk.data.slice(..size.min(chunk.data.len())),
        // The checksum covers the whole chunk.
        crc32c: chunk.crc32c.filter(|_| whole),
        ..chunk
    }
}

fn injected() -> Error {
    Error::new(
        Kind::Unavailable,
        Reason::InjectedFault,
        "the stream was cut because its header asks for it; resume by upload_id",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn chunk(offset: u64, data: &'static str) -> Result<Message> {
        Ok(Message::Chunk(Chunk {
            offset,
            data: data.into(),
            crc32c: Some(1),
        }))
    }

    /// The result of the cut: the data of each chunk or piece, or the offset at the end of a chunk, `+` if it still has its CRC32C,
    /// and `!` for the error.
    async fn cut_stream(header: &str) -> Vec<String> {
        let messages = stream::iter([chunk(0, "abc"), chunk(3, "def"), chunk(6, "ghi")]);
        cut_messages(header, messages).await
    }

    async fn cut_messages(
        header: &str,
        messages: impl Stream<Item = Result<Message>> + Unpin + Send,
    ) -> Vec<String> {
        let plan = Plan::parse(header).unwrap();
        let all = call::scope(Arc::new(plan), async { cut(messages) }).await;
        all.map(|message| match message {
            Ok(Message::Chunk(chunk)) => {
                let text = String::from_utf8(chunk.data.to_vec()).unwrap();
                let crc32c = chunk.crc32c.map(|_| "+").unwrap_or_default();
                text + crc32c
            }
            Ok(Message::Piece(piece)) => String::from_utf8(piece.to_vec()).unwrap(),
            Ok(Message::ChunkEnd(end)) => {
                format!(
                    "{}{}",
                    end.offset,
                    end.crc32c.map(|_| "+").unwrap_or_default()
                )
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable);
                "!".into()
            }
        })
        .collect()
        .await
    }

    #[tokio::test]
    async fn a_chunk_in_pieces_is_cut_where_a_whole_one_is() {
        let pieces = || {
            let piece = |data: &'static str| Ok(Message::Piece(data.into()));
            let end = |offset| {
                let crc32c = Some(1);
                Ok(Message::ChunkEnd(ChunkEnd { offset, crc32c }))
            };
            let (first, second) = ([piece("d"), piece("ef"), end(3)], [piece("ghi"), end(6)]);
            stream::iter([chunk(0, "abc")].into_iter().chain(first).chain(second))
        };
        for (header, expected) in [
            ("stream:cut-after=5", "abc+ d e 3 ! 3+ ghi 6+"),
            ("stream:cut-after=6", "abc+ d ef 3 ! 3+ ghi 6+"),
            ("stream:cut-after=7", "abc+ d ef 3+ g 6 ! 6+"),
        ] {
            assert_eq!(cut_messages(header, pieces()).await.join(" "), expected);
        }
    }

    #[tokio::test]
    async fn the_stream_is_cut_after_the_given_number_of_bytes() {
        assert_eq!(
            cut_stream("stream:cut-after=4").await,
            ["abc+", "d", "!", "ghi+"]
        );
        assert_eq!(
            cut_stream("stream:cut-after=6").await,
            ["abc+", "def+", "!", "ghi+"]
        );
        assert_eq!(
            cut_stream("stream:cut-after=0").await,
            ["", "!", "def+", "ghi+"]
        );
        assert_eq!(
            cut_stream("stream:cut-after=10").await,
            ["abc+", "def+", "ghi+"]
        );
        assert_eq!(
            cut_stream("state.get:fail-before").await,
            ["abc+", "def+", "ghi+"]
        );
    }
}
