//! `Download`: the files that are read over gRPC. It is served here and not by tonic, which copies the bytes of each message.

mod framed;

use std::{ops::Range, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::service::Routes;
use upload_gateway_client::proto::v1::DownloadRequest;
use upload_gateway_core::{
    error::{All, Error, Result},
    gateway::{Chunk, Gateway},
};

use self::framed::Framed;
use super::{call::refuse, convert, deadline, messages::PREFIX};
use crate::auth;

/// The path of the call.
const PATH: &str = "/uploadgateway.v1.UploadService/Download";

/// The most bytes of one message: as many as senders should put into one.
const MAX_CHUNK: usize = 256 * 1024;

/// What of a file is not sent yet.
struct Sending {
    gateway: Arc<Gateway>,
    stream: BoxStream<'static, Result<Bytes>>,
    /// What is left of the last bytes of the store.
    rest: Bytes,
    left: Range<u64>,
    deadline: Option<Instant>,
}

/// `services`, with `Download` served here.
pub fn with_downloads(services: Routes, gateway: &Arc<Gateway>) -> Routes {
    let download = post(download).with_state(Arc::clone(gateway));
    services
        .into_axum_router()
        .route_service(PATH, download)
        .into()
}

async fn download(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    match begin(gateway, request).await {
        Ok(messages) => framed::response(messages),
        Err(error) => refuse(error),
    }
}

async fn begin(
    gateway: Arc<Gateway>,
    request: Request,
) -> Result<impl Stream<Item = Result<Framed>>> {
    let caller = auth::caller(request.extensions())?;
    let deadline = deadline::of(request.headers());
    let request = decoded(request.into_body()).await?;
    let (id, (offset, length)) = (
        convert::upload_id("upload_id", &request.upload_id),
        convert::download::range(request.offset, request.length),
    )
        .all()?;
    let file = gateway.downloads.find(&caller, &id).await?;
    let left = file.range(offset, length)?;
    let stream = gateway.downloads.read(&file, left.clone()).await?;
    let sending = Sending {
        gateway,
        stream,
        rest: Bytes::new(),
        left,
        deadline,
    };
    let chunks = stream::try_unfold(sending, Sending::next).map_ok(Framed::chunk);
    let first = Framed::whole(&convert::download::record(&file.upload));
    Ok(stream::iter([Ok(first)]).chain(chunks))
}

/// The message of a request, which was received within the limits of unary calls.
async fn decoded(body: Body) -> Result<DownloadRequest> {
    let invalid = || Error::sequence("the request is not a DownloadRequest");
    let bytes = to_bytes(body, usize::MAX).await;
    let bytes = bytes.map_err(|error| invalid().caused_by(error))?;
    let message = bytes.get(PREFIX..).ok_or_else(invalid)?;
    DownloadRequest::decode(message).map_err(|error| invalid().caused_by(error))
}

// === impl Sending ===

impl Sending {
    /// The next bytes. `None` after the last ones.
    async fn next(mut self) -> Result<Option<(Chunk, Self)>> {
        while self.rest.is_empty() && !self.left.is_empty() {
            self.rest = self.receive().await?;
        }
        if self.left.is_empty() {
            return Ok(None);
        }
        let size = self.rest.len().min(MAX_CHUNK);
        let chunk = Chunk::sent(self.left.start, self.rest.split_to(size));
        self.left.start += size as u64;
        if self.left.start > self.left.end {
            return Err(Error::fault(
                "the store sent more bytes than were asked for",
            ));
        }
        Ok(Some((chunk, self)))
    }

    /// The next bytes of the store.
    async fn receive(&mut self) -> Result<Bytes> {
        let next = async {
            tokio::select! {
                next = self.stream.try_next() => next,
                error = self.gateway.drain.begun() => Err(error),
            }
        };
        let next = match self.deadline {
            Some(deadline) => timeout_at(deadline, next).await,
            None => Ok(next.await),
        };
        let next = next.unwrap_or_else(|_| Err(deadline::exceeded()))?;
        next.ok_or_else(|| Error::store_unavailable("the object ended before its size"))
    }
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::error::Reason;

    use super::*;

    #[tokio::test]
    async fn a_request_that_is_not_a_message_of_this_call_is_refused() {
        let refused = async |bytes: &'static [u8]| {
            let error = decoded(Body::from(bytes)).await.unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidSequence);
        };
        refused(b"").await;
        refused(b"\0\0\0").await;
        // A string that ends after the message.
        refused(b"\0\0\0\0\x02\x0a\x05").await;
        let empty = decoded(Body::from(&b"\0\0\0\0\0"[..])).await.unwrap();
        assert_eq!(empty, DownloadRequest::default());
    }
}
