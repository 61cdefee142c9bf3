//! Limits the memory of the bodies of concurrent requests.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tokio_util::sync::CancellationToken;

use super::request::BODY_LIMIT;
use crate::room::{Place, ReceivedBody, Room, Rules};

/// The memory of the bodies of all requests, in bytes: 32 of the largest.
const BODIES: Rules = Rules {
    what: "bytes of requests",
    limit: None,
    total: 64 * 1024 * 1024,
    per_owner: u32::MAX,
    reserve: 0,
    wait_limit: Duration::from_secs(5),
    yields_after: Duration::from_secs(1),
    ends_after: None,
};

/// How many bytes of a body are part of the memory of its call.
const FREE: usize = 16 * 1024;

/// The room for the bodies of one server.
pub(super) fn room() -> Arc<Room> {
    Room::new(BODIES)
}

/// Handles a request, whose body takes room when it arrives and returns it with the response.
pub(super) async fn admit(State(room): State<Arc<Room>>, request: Request, next: Next) -> Response {
    let place = Arc::new(room.enter(CancellationToken::new()));
    let call = request.extensions().get::<Weak<Place>>().cloned();
    let request =
        request.map(|body| Body::new(ReceivedBody::new(body, &place, call, FREE..BODY_LIMIT)));
    next.run(request).await
}
