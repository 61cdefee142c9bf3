//! How many requests are taken at once: as many as their bodies leave room for.

use std::{sync::Arc, time::Duration};

use axum::{
    body::HttpBody,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;
use upload_gateway_core::error::{Error, Kind, Reason};

use super::{failure::Failure, request::BODY_LIMIT};

/// What the bodies of all requests under way may come to, in bytes: 31 of the largest, or 1,024 requests without one.
const ROOM: usize = 64 * 1024 * 1024;

/// What a request counts for besides its body, in bytes.
const WITHOUT_BODY: usize = 64 * 1024;

/// When a request may come again that found no room.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// The room of one server.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM))
}

/// Answers a request if there is room for it, which it then has until its answer begins.
pub(super) async fn admit(
    State(room): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_place) = room.try_acquire_many(size(&request)) else {
        let message = "too many requests at once; try again";
        let error = Error::new(Kind::Unavailable, Reason::Overloaded, message);
        return Failure::from(error.retry_after(COME_AGAIN)).into_response();
    };
    next.run(request).await
}

/// A body that does not say its size may be as large as any.
fn size(request: &Request) -> u32 {
    let said = request.body().size_hint().upper();
    let body = said.and_then(|size| usize::try_from(size).ok());
    let size = WITHOUT_BODY + body.unwrap_or(BODY_LIMIT).min(BODY_LIMIT);
    u32::try_from(size).unwrap_or(u32::MAX)
}
