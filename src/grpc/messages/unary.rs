//! Receives the request of a unary call.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use bytes::BytesMut;
use futures::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use upload_gateway_core::error::{Error, Kind, Reason, Result};

use super::{
    compressed,
    frames::{Frames, Malformed},
    too_large,
};
use crate::room::{Place, ReceivedBody, Room};

/// The time in which a request must arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes of a request need no room. They are part of the memory of its call.
const FREE: usize = 16 * 1024;

/// The request with its message of up to `max` bytes, and the room that the message takes.
pub(super) async fn received(
    room: &Arc<Room>,
    request: Request,
    max: u64,
) -> Result<(Request, Arc<Place>)> {
    let place = Arc::new(room.enter(CancellationToken::new()));
    let call = request.extensions().get::<Weak<Place>>().cloned();
    let (head, body) = request.into_parts();
    let body = ReceivedBody::new(body, &place, call, FREE..usize::MAX);
    let received = timeout(TIMEOUT, collected(Body::new(body), max));
    let message = received.await.unwrap_or_else(|_| Err(too_slow()))?;
    Ok((Request::from_parts(head, Body::from(message)), place))
}

async fn collected(body: Body, max: u64) -> Result<Bytes> {
    let (mut frames, mut received) = (Frames::new(max), BytesMut::new());
    let mut body = body.into_data_stream();
    while let Some(data) = body.next().await {
        let data = data.map_err(|error| match error.into_inner().downcast() {
            Ok(error) => *error,
            Err(error) => gone().caused_by(error),
        })?;
        frames.read(&data).map_err(|malformed| match malformed {
            Malformed::TooLarge => too_large(max),
            Malformed::Compressed => compressed(Kind::InvalidArgument),
            Malformed::Flag => incomplete(),
        })?;
        if frames.has_message() && received.len() as u64 > max {
            return Err(Error::sequence("the request has several messages"));
        }
        received.extend_from_slice(&data);
    }
    if frames.incomplete() > 0 {
        return Err(incomplete());
    }
    Ok(received.freeze())
}

fn incomplete() -> Error {
    Error::sequence("the request is not a complete gRPC message")
}

fn too_slow() -> Error {
    let message = "the request did not arrive within 30 seconds; send it again";
    Error::new(Kind::Unavailable, Reason::IdleTimeout, message)
}

/// The client does not receive this.
fn gone() -> Error {
    let message = "the connection of the client ended";
    Error::new(Kind::Cancelled, Reason::ClientGone, message)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::{super::ROOM, *};
    use futures::{FutureExt, stream};

    fn framed(size: usize) -> Bytes {
        let length = u32::try_from(size).unwrap().to_be_bytes();
        [&[0][..], &length, &vec![7; size]].concat().into()
    }

    fn request(frames: Vec<Bytes>, is_complete: bool) -> Request {
        let sent = stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
        let rest = if is_complete {
            stream::empty().boxed()
        } else {
            stream::pending().boxed()
        };
        Request::new(Body::from_stream(sent.chain(rest)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_in_time_is_refused() {
        let room = Room::new(ROOM);
        let slow = request(vec![framed(100).slice(..50)], false);
        let error = received(&room, slow, 100).await.unwrap_err();
        assert_eq!(error.reason(), Reason::IdleTimeout);
    }

    #[tokio::test]
    async fn sizes_are_bounded_and_frames_are_checked() {
        let room = Room::new(ROOM);
        let receive = |frames| {
            let received = received(&room, request(frames, true), 100);
            received.map(|received| received.map(|_| ()).map_err(|error| error.reason()))
        };
        assert_eq!(receive(vec![framed(100)]).await, Ok(()));
        assert_eq!(receive(vec![]).await, Ok(()));
        let large = receive(vec![framed(101)]).await;
        assert_eq!(large, Err(Reason::MessageTooLarge));
        let cut = receive(vec![framed(100).slice(..50)]).await;
        assert_eq!(cut, Err(Reason::InvalidSequence));
        let many = receive(vec![framed(100); 3]).await;
        assert_eq!(many, Err(Reason::InvalidSequence));
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_requests_make_room_for_another_one() {
        const SIZE: usize = 4 << 20;
        let room = Room::new(ROOM);
        let stall = || {
            let stalled = request(vec![framed(SIZE).slice(..SIZE)], false);
            let room = Arc::clone(&room);
            tokio::spawn(async move { received(&room, stalled, SIZE as u64).await.map(|_| ()) })
        };
        let stalled: Vec<_> = (0..4).map(|_| stall()).collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let honest = request(vec![framed(SIZE)], true);
        received(&room, honest, SIZE as u64).await.unwrap();
        let ended = stalled.iter().filter(|stalled| stalled.is_finished());
        assert_eq!(ended.count(), 1);
    }
}
