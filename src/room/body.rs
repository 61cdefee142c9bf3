//! Bodies of requests and responses that take a place in a room.

use std::{
    error::Error as StdError,
    ops::Range,
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
/// its body. Each costs a write to the socket: in pieces of 16 KiB, a download takes 1.3 times the CPU time.
const PIECE: usize = 64 * 1024;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The body of a request, whose bytes take room when they arrive. A first part of it needs none. It fails with an [`Error`] if
/// there is no room, or if its place is revoked because the client sends nothing.
pub(crate) struct ReceivedBody {
    body: Body,
    place: Arc<Place>,
    /// The place of the call, until the body has arrived.
    call: Option<Weak<Place>>,
    /// How many bytes have arrived.
    arrived: usize,
    /// The bytes of the body that need room: not the first ones, and not those that are only discarded.
    charged: Range<usize>,
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
    /// A body of which the bytes in `charged` need room. `call` is the place of its call, which waits for its client until then.
    pub(crate) fn new(
        body: Body,
        place: &Arc<Place>,
        call: Option<Weak<Place>>,
        charged: Range<usize>,
    ) -> Self {
        place.wait_for_client();
        let revoked = Arc::clone(place);
        Self {
            body,
            place: Arc::clone(place),
            call,
            arrived: 0,
            charged,
            waiting: None,
            revoked: Box::pin(async move { revoked.revoked().await }),
        }
    }

    /// How many of the bytes that have arrived need room.
    fn charge(&self) -> usize {
        let end = self.arrived.min(self.charged.end);
        end.saturating_sub(self.charged.start)
    }

    /// Takes room for a frame, or waits for it.
    fn take(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let before = self.charge();
        self.arrived += frame.data_ref().map_or(0, Bytes::len);
        let amount = u32::try_from(self.charge() - before).unwrap_or(u32::MAX);
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn, time::Duration};

    use futures::{FutureExt, StreamExt, stream};
    use tokio_util::sync::CancellationToken;

    use super::{
        super::{Room, Rules},
        *,
    };

    const RULES: Rules = Rules {
        what: "bytes",
        limit: None,
        total: 10,
        per_owner: u32::MAX,
        reserve: 0,
        wait_limit: Duration::from_secs(2),
        yields_after: Duration::from_secs(1),
        ends_after: None,
    };

    async fn frame<B: HttpBody<Data = Bytes> + Unpin>(
        body: &mut B,
    ) -> Option<Result<Bytes, B::Error>> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    /// A body of pieces of this size, which does not end.
    fn unfinished(pieces: &[usize]) -> Body {
        let pieces = pieces
            .iter()
            .map(|size| Ok::<_, Infallible>(vec![7; *size]));
        let pieces: Vec<_> = pieces.collect();
        Body::from_stream(stream::iter(pieces).chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_response_is_sent_in_pieces_and_keeps_its_place_until_it_is_dropped() {
        let room = Room::new(Rules { total: 1, ..RULES });
        let enter = || room.enter(CancellationToken::new());
        let place = enter();
        assert!(place.try_take(1));
        let sent: Vec<u8> = (0..=255).cycle().take(3 * PIECE + 5).collect();
        let mut body = SentBody::new(sent.clone().into(), place);
        let mut received = Vec::new();
        for left in [3 * PIECE + 5, 2 * PIECE + 5, PIECE + 5, 5] {
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            assert!(!body.is_end_stream());
            received.extend(frame(&mut body).await.unwrap().unwrap());
        }
        assert!(body.is_end_stream());
        assert_eq!(received, sent);
        assert!(!enter().try_take(1));
        drop(body);
        assert!(enter().try_take(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_not_read_ends_for_another_one() {
        let room = Room::new(Rules { total: 1, ..RULES });
        let end = CancellationToken::new();
        let place = room.enter(end.clone());
        assert!(place.try_take(1));
        let mut body = SentBody::new(unfinished(&[PIECE, PIECE]), place);
        frame(&mut body).await.unwrap().unwrap();
        tokio::time::advance(RULES.yields_after).await;
        let other = room.enter(CancellationToken::new());
        let mut waits = std::pin::pin!(other.take(1));
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(end.is_cancelled());
        drop(body);
        waits.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_waits_for_its_store_keeps_its_place() {
        let room = Room::new(Rules { total: 1, ..RULES });
        let end = CancellationToken::new();
        let place = room.enter(end.clone());
        assert!(place.try_take(1));
        let mut body = SentBody::new(unfinished(&[1]), place);
        frame(&mut body).await.unwrap().unwrap();
        assert!(frame(&mut body).now_or_never().is_none());
        tokio::time::advance(10 * RULES.yields_after).await;
        let other = room.enter(CancellationToken::new());
        other.take(1).await.unwrap_err();
        assert!(!end.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_charged_bytes_of_a_request_take_room() {
        let room = Room::new(RULES);
        let place = Arc::new(room.enter(CancellationToken::new()));
        let mut body = ReceivedBody::new(unfinished(&[3, 3, 3, 100]), &place, None, 4..7);
        for _ in 0..4 {
            frame(&mut body).await.unwrap().unwrap();
        }
        let other = room.enter(CancellationToken::new());
        assert!(other.try_take(RULES.total - 3) && !other.try_take(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_stalls_fails_when_its_room_is_needed() {
        let room = Room::new(RULES);
        let place = Arc::new(room.enter(CancellationToken::new()));
        let mut body = ReceivedBody::new(unfinished(&[10]), &place, None, 0..100);
        frame(&mut body).await.unwrap().unwrap();
        tokio::time::advance(RULES.yields_after).await;
        let other = room.enter(CancellationToken::new());
        let mut waits = std::pin::pin!(other.take(1));
        assert!(waits.as_mut().now_or_never().is_none());
        let error = frame(&mut body).await.unwrap().unwrap_err();
        assert!(error.downcast::<Error>().unwrap().retry_delay().is_some());
        drop((body, place));
        waits.await.unwrap();
    }
}
