//! Faults that a request requests in its header.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use upload_gateway_core::{
    call,
    faults::{HEADER, Plan},
};

use super::failure::Failure;

/// Runs every request to `router` in the scope of the faults that it requests.
pub fn with_faults(router: Router) -> Router {
    router.layer(from_fn(scope_plan))
}

async fn scope_plan(request: Request, next: Next) -> Response {
    match Plan::read(request.headers().get_all(HEADER)) {
        Ok(None) => next.run(request).await,
        Ok(Some(plan)) => call::scope(Arc::new(plan), next.run(request)).await,
        Err(error) => Failure::from(error).into_response(),
    }
}
