//! The scope that every call runs in.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use upload_gateway_core::{call, retry::CallWait};

/// Gives each call to `router` its own [`CallWait`], so that it waits for unavailable stores only once in all.
pub(super) fn scoped(router: Router) -> Router {
    router.layer(from_fn(scope))
}

async fn scope(request: Request, next: Next) -> Response {
    call::scope(Arc::new(CallWait::default()), next.run(request)).await
}
