//! The `Host` header, without which a request has no clear target (RFC 9112, section 3.2).

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, Version, header::HOST},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};

use super::failure::Failure;

/// Refuses requests to `router` that have no `Host` header, or more than one. An HTTP/1.0 request may have none.
pub fn with_one_host(router: Router) -> Router {
    router.layer(from_fn(check))
}

async fn check(request: Request, next: Next) -> Response {
    match host(&request) {
        Ok(_) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// The value of `Host`, which an HTTP/1.0 request may lack. Empty if it is not text.
pub(super) fn host(request: &Request) -> Result<Option<&str>, Failure> {
    let mut sent = request.headers().get_all(HOST).iter();
    match (sent.next(), sent.next()) {
        (Some(host), None) => Ok(Some(host.to_str().unwrap_or_default())),
        (None, None) if request.version() == Version::HTTP_10 => Ok(None),
        _ => Err(Failure::Refused(
            StatusCode::BAD_REQUEST,
            "exactly one Host header is required",
        )),
    }
}
