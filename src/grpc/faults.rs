//! Faults that a call requests in its metadata.

use std::sync::Arc;

use axum::{
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use tonic::service::Routes;
use upload_gateway_core::{
    call,
    faults::{HEADER, Plan},
};

use crate::status::grpc_status;

/// Runs every call of `services` in the scope of the faults that it requests.
pub fn with_faults(services: Routes) -> Routes {
    services
        .into_axum_router()
        .layer(from_fn(scope_plan))
        .into()
}

async fn scope_plan(request: Request, next: Next) -> Response {
    match Plan::read(request.headers().get_all(HEADER)) {
        Ok(None) => next.run(request).await,
        Ok(Some(plan)) => call::scope(Arc::new(plan), next.run(request)).await,
        Err(error) => grpc_status(&error).into_http(),
    }
}
