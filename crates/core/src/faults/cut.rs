//! Ends a stream after the number of bytes that its sender asks for.

use futures::{Stream, StreamExt, stream};

use super::plan::Plan;
use crate::{
    call,
    error::{Error, Kind, Reason, Result},
    gateway::{Chunk, Message},
};

/// The messages of the running call. If its plan cuts the stream, an `Unavailable` error follows the given number of
/// chunk bytes. Messages that the client sends later can still be read, and are to be discarded.
pub fn cut(
    messages: impl Stream<Item = Result<Message>> + Unpin + Send,
) -> impl Stream<Item = Result<Message>> + Unpin + Send {
    let mut left = call::current::<Plan>().and_then(|plan| plan.cut_after());
    if left.is_none() {
        return messages.left_stream();
    }
    let cut = messages.flat_map(move |message| {
        let (first, second) = match (left, message) {
            (Some(bytes), Ok(Message::Chunk(chunk))) if chunk.data.len() as u64 >= bytes => {
                left = None;
                (
                    Ok(Message::Chunk(head(chunk, bytes))),
                    Some(Err(injected())),
                )
            }
            (Some(bytes), Ok(Message::Chunk(chunk))) => {
                left = Some(bytes - chunk.data.len() as u64);
                (Ok(Message::Chunk(chunk)), None)
            }
            (_, message) => (message, None),
        };
        stream::iter([Some(first), second].into_iter().flatten())
    });
    cut.right_stream()
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

    /// The result of the cut: the data of each chunk, `+` if it still has its CRC32C, and `!` for the error.
    async fn cut_stream(header: &str) -> Vec<String> {
        let plan = Plan::parse(header).unwrap();
        let messages = stream::iter([chunk(0, "abc"), chunk(3, "def"), chunk(6, "ghi")]);
        let all = call::scope(Arc::new(plan), async { cut(messages) }).await;
        all.map(|message| match message {
            Ok(Message::Chunk(chunk)) => {
                let text = String::from_utf8(chunk.data.to_vec()).unwrap();
                let crc32c = chunk.crc32c.map(|_| "+").unwrap_or_default();
                text + crc32c
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
