//! Limits the number and the memory of concurrent requests.

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

/// The memory of all concurrent requests in bytes: 31 requests with the largest body, or 1,024 without a body.
const MEMORY: usize = 64 * 1024 * 1024;

/// The memory of a request without its body, in bytes.
const WITHOUT_BODY: usize = 64 * 1024;

/// When a refused request may be retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory of one server: a semaphore with one permit for each byte.
pub(super) fn permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MEMORY))
}

/// Handles a request if there are permits for it, which it holds until the response starts.
pub(super) async fn admit(
    State(permits): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_held) = permits.try_acquire_many(size(&request)) else {
        let message = "too many requests run at once";
        let error = Error::new(Kind::Unavailable, Reason::Overloaded, message);
        return Failure::from(error.retry_after(RETRY_AFTER)).into_response();
    };
    next.run(request).await
}

/// The memory of a request. A body without a declared size counts as the largest one.
fn size(request: &Request) -> u32 {
    let declared = request.body().size_hint().upper();
    let body = declared.and_then(|size| usize::try_from(size).ok());
    let size = WITHOUT_BODY + body.unwrap_or(BODY_LIMIT).min(BODY_LIMIT);
    u32::try_from(size).unwrap_or(u32::MAX)
}
