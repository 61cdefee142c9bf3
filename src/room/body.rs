//! Bodies of requests and responses that take a place in a room.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use upload_gateway_core::error::Error;

use super::Place;

/// The size in bytes of the pieces in which a response is sent, so that only little of it waits for a slow client outside of
/// its body.
const PIECE: usize = 16 * 1024;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The body of a request, whose bytes take room when they arrive. A first part of it needs none. It fails with an [`Error`] if
/// there is no room, or if its place is revoked because the client sends nothing.
pub(crate) struct ReceivedBody {
    body: Body,
    place: Arc<Place>,
    /// The place of the call, until the body has arrived.
    call: Option<Weak<Place>>,
    /// How many bytes still need no room.
    free: usize,
    waiting: Option<Waiting>,
    revoked: BoxFuture<'static, Error>,
}

/// A frame that waits for room.
struct Waiting {
    frame: Option<Frame<Bytes>>,
    taking: BoxFuture<'static, Result<(), Error>>,
}

/// The body of a response, which holds a place until the client has read it.
#[derive(Debug)]
pub(crate) struct SentBody {
    body: Body,
    place: Place,
    /// What is left of the last frame.
    rest: Bytes,
}

// === impl ReceivedBody ===

impl ReceivedBody {
    /// A body whose first `free` bytes need no room. `call` is the place of its call, which waits for its client until then.
    pub(crate) fn new(
        body: Body,
        place: &Arc<Place>,
        call: Option<Weak<Place>>,
        free: usize,
    ) -> Self {
        place.wait_for_client();
        let revoked = Arc::clone(place);
        Self {
            body,
            place: Arc::clone(place),
            call,
            free,
            waiting: None,
            revoked: Box::pin(async move { revoked.revoked().await }),
        }
    }

    /// Takes room for a frame, or waits for it.
    fn take(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let amount = length.saturating_sub(self.free);
        self.free = self.free.saturating_sub(length);
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        if amount == 0 || self.place.try_take(amount) {
            return Some(frame);
        }
        self.place.wait_for_gateway();
        let place = Arc::clone(&self.place);
        self.waiting = Some(Waiting {
            frame: Some(frame),
            taking: Box::pin(async move { place.take(amount).await }),
        });
        None
    }
}

impl HttpBody for ReceivedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if let Some(waiting) = &mut this.waiting {
                let taken = ready!(waiting.taking.as_mut().poll(context));
                let frame = waiting.frame.take();
                this.waiting = None;
                this.place.wait_for_client();
                return Poll::Ready(match taken {
                    Ok(()) => frame.map(Ok),
                    Err(error) => Some(Err(error.into())),
                });
            }
            if let Poll::Ready(error) = this.revoked.as_mut().poll(context) {
                return Poll::Ready(Some(Err(error.into())));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    this.place.wait_for_client();
                    if let Some(frame) = this.take(frame) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    this.place.wait_for_gateway();
                    if let Some(call) = this.call.take().and_then(|call| call.upgrade()) {
                        call.wait_for_gateway();
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl SentBody ===

impl SentBody {
    /// A body that holds `place`.
    pub(crate) fn new(body: Body, place: Place) -> Self {
        Self {
            body,
            place,
            rest: Bytes::new(),
        }
    }
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        // The client has read the last piece.
        this.place.wait_for_gateway();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = PIECE.min(this.rest.len());
        let piece = this.rest.split_to(length);
        this.place.wait_for_client();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

impl std::fmt::Debug for ReceivedBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = formatter.debug_struct("ReceivedBody");
        { body }.field("place", &self.place).finish_non_exhaustive()
    }
}
