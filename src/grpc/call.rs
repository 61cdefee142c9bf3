//! What every call of the gRPC edge does first and last.

use tonic::{Request, Response, Status};
use upload_gateway_core::{
    error::{Error, Result},
    gateway::Caller,
};

use crate::{auth, status::grpc_status};

/// The caller of a request.
///
/// # Errors
/// UNAUTHENTICATED if the request has none.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let found = auth::caller(request.extensions());
    found.map_err(|error| grpc_status(&error))
}

/// The response to a call, or its error.
pub(super) fn respond<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result
        .map(Response::new)
        .map_err(|error| grpc_status(&error))
}

/// The response to a call that is not handled.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the same form as that of the HTTP edge"
)]
pub(crate) fn refuse(error: Error) -> axum::response::Response {
    grpc_status(&error).into_http()
}
