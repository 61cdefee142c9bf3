//! Reads the rest of a refused request, so that the client gets the response.
//!
//! A request with a wrong signature is refused before its body is read. Closing the connection at that point resets it,
//! and a client that is still writing sees a broken pipe instead of the response. So the rest of the body is read and
//! dropped first, within limits.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use s3s::service::S3Service;
use s3s::{HttpError, HttpResponse};

/// How many bytes are read and dropped at most: more than a usual part. A client that sends more may not get
/// the response.
const DRAIN_LIMIT: usize = 16 << 20;
/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A request body that can still be read after the service dropped its handle.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Incoming>>);

/// Calls the service, and returns its response once the body was read or a limit was reached.
pub(super) async fn call(
    service: S3Service,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpError> {
    // Such a client sends the body only after "100 Continue", which reading the body would send.
    let expects_continue = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let body = SharedBody(Arc::new(Mutex::new(body)));
    let request = Request::from_parts(head, s3s::Body::http_body(body.clone()));
    let answer = service.call(request).await;
    if !expects_continue {
        // The response is the same after a time-out.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain(body)).await;
    }
    answer
}

async fn drain(mut body: SharedBody) {
    let mut left = DRAIN_LIMIT;
    while left > 0 && !body.is_end_stream() {
        match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            Some(Ok(frame)) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) | None => break,
        }
    }
}

// === impl SharedBody ===

impl SharedBody {
    fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for SharedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}
