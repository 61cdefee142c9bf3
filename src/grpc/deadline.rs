//! The deadline that a caller sets for its call, in the header `grpc-timeout`.

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    http::HeaderMap,
    middleware::{Next, from_fn},
    response::Response,
};
use tokio::time::{Instant, timeout_at};
use upload_gateway_core::error::{Error, Kind, Reason};

use crate::status::grpc_status;

/// Ends each call to `services` at its deadline, if its response has not begun by then.
pub fn with_deadlines(services: Router) -> Router {
    services.layer(from_fn(end_at_deadline))
}

async fn end_at_deadline(request: Request, next: Next) -> Response {
    let Some(deadline) = of(request.headers()) else {
        return next.run(request).await;
    };
    match timeout_at(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => grpc_status(&exceeded()).into_http(),
    }
}

/// The deadline of a call: up to 8 digits and a unit. A malformed one counts as none.
pub(super) fn of(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u32 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let unit = match unit {
        "H" => Duration::from_secs(60 * 60),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Instant::now().checked_add(unit * count)
}

/// The error of a call whose deadline has passed.
pub(super) fn exceeded() -> Error {
    let message =
        "the deadline of the call has passed; complete parts are kept, resume by upload_id";
    Error::new(Kind::DeadlineExceeded, Reason::DeadlineExceeded, message)
}
