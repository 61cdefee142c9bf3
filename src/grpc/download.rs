//! The files that are read over gRPC.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use upload_gateway_client::proto::v1::{DownloadRequest, DownloadResponse};
use upload_gateway_core::{
    error::{All, Error, Result},
    gateway::{Caller, Chunk, Gateway},
};

use super::{convert, deadline};
use crate::status::grpc_status;

/// The most bytes of one message: as many as senders should put into one.
const MAX_CHUNK: usize = 256 * 1024;

/// The messages of one download.
type Messages = BoxStream<'static, Result<DownloadResponse, Status>>;

/// What of a file is not sent yet.
struct Sending {
    gateway: Arc<Gateway>,
    stream: BoxStream<'static, Result<Bytes>>,
    /// What is left of the last bytes of the store.
    rest: Bytes,
    left: Range<u64>,
    deadline: Option<Instant>,
}

/// Begins a download.
pub(super) async fn begin(
    gateway: Arc<Gateway>,
    caller: &Caller,
    request: &DownloadRequest,
    deadline: Option<Instant>,
) -> Result<Messages> {
    let (id, (offset, length)) = (
        convert::upload_id("upload_id", &request.upload_id),
        convert::download::range(request.offset, request.length),
    )
        .all()?;
    let file = gateway.downloads.find(caller, &id).await?;
    let left = file.range(offset, length)?;
    let stream = gateway.downloads.read(&file, left.clone()).await?;
    let sending = Sending {
        gateway,
        stream,
        rest: Bytes::new(),
        left,
        deadline,
    };
    let chunks = stream::try_unfold(sending, Sending::next).map_ok(convert::download::chunk);
    let first = stream::iter([Ok(convert::download::record(&file.upload))]);
    let messages = first.chain(chunks);
    Ok(messages.map_err(|error| grpc_status(&error)).boxed())
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
