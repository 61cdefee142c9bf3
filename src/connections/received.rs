//! The body of an HTTP/2 request, of which the rest is discarded for a moment when its call has ended before.
//!
//! h2 resets a stream whose request is not read to its end, and forgets it soon. Data of its client that is in flight then counts
//! as an error of the connection, and 1,024 of these end it (ENHANCE_YOUR_CALM), with all calls of other callers behind the
//! same proxy. A request that is refused by its head is usually small and in flight already.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

/// How many bytes are discarded.
const MAX_DISCARDED: usize = 64 * 1024;

/// How long they may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bodies are discarded at a time in this process. Streams of others are reset at once.
static DISCARDING: Semaphore = Semaphore::const_new(1024);

/// The body of a request.
#[derive(Debug)]
pub(crate) struct ReceivedRequest {
    body: Option<Incoming>,
    is_discarded: bool,
}

// === impl ReceivedRequest ===

impl ReceivedRequest {
    /// A body of which the rest is discarded.
    pub(super) fn http2(body: Incoming) -> Self {
        Self {
            body: Some(body),
            is_discarded: true,
        }
    }

    /// A body that is dropped as it is: hyper closes the connection, or reads the rest.
    pub(super) fn http1(body: Incoming) -> Self {
        Self {
            body: Some(body),
            is_discarded: false,
        }
    }
}

impl Body for ReceivedRequest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map(Incoming::size_hint)
            .unwrap_or_default()
    }
}

impl Drop for ReceivedRequest {
    fn drop(&mut self) {
        let Some(body) = self
            .body
            .take()
            .filter(|body| self.is_discarded && !body.is_end_stream())
        else {
            return;
        };
        let (Ok(runtime), Ok(permit)) = (Handle::try_current(), DISCARDING.try_acquire()) else {
            return;
        };
        runtime.spawn(async move {
            let _permit = permit;
            // What has not arrived by then is refused by the reset of the stream.
            let _ = timeout(DISCARD_TIMEOUT, discard(body)).await;
        });
    }
}

async fn discard(mut body: Incoming) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let length = frame.data_ref().map_or(0, Buf::remaining);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
