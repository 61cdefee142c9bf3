//! The gRPC edge: parse, ask the gateway, convert.

mod convert;
mod faults;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../fuzz/checks/grpc.rs"]
pub mod fuzzing;
mod signing;
mod upload;

use tonic::{Request, Response, Status};
use tonic_reflection::server::{Builder, v1, v1alpha};
use upload_gateway_core::{error::Result, gateway::Caller};

pub use self::{faults::with_faults, signing::SigningApi, upload::UploadApi};
use crate::{proto::FILE_DESCRIPTOR_SET, status::grpc_status};

/// Reflection in both versions, over this API, health and the types of error details, so that a client without proto
/// files can call everything and read every error.
///
/// # Errors
/// A descriptor set that is none, which the build does not produce.
pub fn reflection() -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    tonic_reflection::server::Error,
> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok((builder().build_v1()?, builder().build_v1alpha()?))
}

/// Without authentication everybody is the same caller.
fn caller<T>(_request: &Request<T>) -> Caller {
    Caller::default()
}

fn respond<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result
        .map(Response::new)
        .map_err(|error| grpc_status(&error))
}
