//! What every call of the gRPC edge does first and last.

use tonic::{Request, Response, Status};
use upload_gateway_core::{error::Result, gateway::Caller};

use crate::status::grpc_status;

/// The caller of a request. Without authentication all callers are the same one.
pub(super) fn caller<T>(_request: &Request<T>) -> Caller {
    Caller::default()
}

/// The response to a call, or its error.
pub(super) fn respond<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result
        .map(Response::new)
        .map_err(|error| grpc_status(&error))
}
