//! The messages of a response that contain bytes of a file. The bytes are not copied into their messages: the fields of a message
//! and its bytes are two pieces of the body.

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    http::header::CONTENT_TYPE,
    response::Response,
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream::BoxStream};
use hyper::body::Frame;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tonic::{Status, metadata::GRPC_CONTENT_TYPE};
use upload_gateway_client::proto::v1::DownloadResponse;
use upload_gateway_core::{error::Result, gateway::Chunk};

use super::super::{convert, messages::PREFIX};
use crate::status::grpc_status;

/// The number of `DownloadResponse.chunk`.
const CHUNK: u32 = 2;

/// The number of `Chunk.data`.
const DATA: u32 = 2;

/// A message in its gRPC frame: first `head`, then `data`.
#[derive(Debug)]
pub(super) struct Framed {
    head: Bytes,
    data: Bytes,
}

/// The body of the response.
struct Messages {
    /// `None` after its end.
    messages: Option<BoxStream<'static, Result<Framed>>>,
    /// The second piece of the last message.
    data: Bytes,
}

/// The response with these messages. It ends with their error, or with OK.
pub(super) fn response(messages: impl Stream<Item = Result<Framed>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::new(Messages {
        messages: Some(messages.boxed()),
        data: Bytes::new(),
    }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

/// The prefix of a message of `length` bytes, with room for its first fields.
fn prefix(length: usize) -> BytesMut {
    let mut prefix = BytesMut::with_capacity(PREFIX + 64);
    prefix.put_u8(0);
    // No message has more than a chunk and its fields.
    prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    prefix
}

// === impl Framed ===

impl Framed {
    /// A message without bytes of a file.
    pub(super) fn whole(message: &DownloadResponse) -> Self {
        let mut head = prefix(message.encoded_len());
        head.put_slice(&message.encode_to_vec());
        Self {
            head: head.freeze(),
            data: Bytes::new(),
        }
    }

    /// A message with a chunk, as prost encodes it, except that `data` is the last field.
    pub(super) fn chunk(chunk: Chunk) -> Self {
        let (fields, data) = (convert::download::chunk_fields(&chunk), chunk.data);
        let size = data.len() as u64;
        let field = |number: u32, size: u64| key_len(number) + encoded_len_varint(size);
        let chunk_length = fields.encoded_len() + field(DATA, size) + data.len();
        let mut head = prefix(field(CHUNK, chunk_length as u64) + chunk_length);
        encode_key(CHUNK, WireType::LengthDelimited, &mut head);
        encode_varint(chunk_length as u64, &mut head);
        head.put_slice(&fields.encode_to_vec());
        encode_key(DATA, WireType::LengthDelimited, &mut head);
        encode_varint(size, &mut head);
        Self {
            head: head.freeze(),
            data,
        }
    }
}

// === impl Messages ===

impl Messages {
    fn end(&mut self, status: Status) -> Frame<Bytes> {
        self.messages = None;
        // As trailers, without what describes a body.
        let mut trailers = status.into_http::<()>().into_parts().0.headers;
        trailers.remove(CONTENT_TYPE);
        Frame::trailers(trailers)
    }
}

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.data.is_empty() {
            let data = mem::take(&mut self.data);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(messages) = &mut self.messages else {
            return Poll::Ready(None);
        };
        let frame = match ready!(messages.poll_next_unpin(context)) {
            Some(Ok(Framed { head, data })) => {
                self.data = data;
                Frame::data(head)
            }
            Some(Err(error)) => self.end(grpc_status(&error)),
            None => self.end(Status::ok("")),
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::stream;
    use upload_gateway_client::proto::v1::download_response::Message as Kind;
    use upload_gateway_core::error::Error;

    use super::*;

    #[test]
    fn a_chunk_is_the_message_that_prost_decodes() {
        for size in [0, 1, 127, 128, 16 * 1024, 256 * 1024] {
            let data = Bytes::from(vec![7; size]);
            let framed = Framed::chunk(Chunk::sent(1 << 40, data.clone()));
            // The bytes themselves, not a copy.
            assert_eq!(framed.data.as_ptr(), data.as_ptr());
            let sent = [framed.head, framed.data].concat();
            let (prefix, message) = sent.split_at(PREFIX);
            assert_eq!(prefix[0], 0);
            assert_eq!(
                prefix[1..],
                u32::try_from(message.len()).unwrap().to_be_bytes()
            );
            let decoded = DownloadResponse::decode(message).unwrap();
            let Some(Kind::Chunk(chunk)) = decoded.message else {
                panic!("{decoded:?}")
            };
            assert_eq!((chunk.offset, &chunk.data), (1 << 40, &data));
            assert_eq!(chunk.crc32c, Chunk::sent(0, data).crc32c);
        }
    }

    #[tokio::test]
    async fn the_status_is_in_the_trailers() {
        let failed = || Err(Error::store_unavailable("gone"));
        for (last, status) in [(None, "0"), (Some(failed()), "14")] {
            let first = Ok(Framed::whole(&DownloadResponse::default()));
            let mut body = response(stream::iter([first].into_iter().chain(last))).into_body();
            let mut frames = Vec::new();
            while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                frames.push(frame.unwrap());
            }
            assert_eq!(frames.len(), 2);
            let trailers = frames[1].trailers_ref().unwrap();
            assert_eq!(trailers[Status::GRPC_STATUS], status);
            assert!(!trailers.contains_key(CONTENT_TYPE));
        }
    }
}
