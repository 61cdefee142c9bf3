//! The gRPC edge: parses a request, calls the gateway, converts the result.

mod admin;
mod call;
mod convert;
mod deadline;
mod download;
mod faults;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../fuzz/checks/grpc.rs"]
pub mod fuzzing;
mod messages;
mod progress;
mod signing;
mod upload;

use std::collections::HashSet;

use prost::{DecodeError, Message};
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic_reflection::server::{Builder, Error, v1, v1alpha};

pub(crate) use self::call::refuse;
pub use self::{
    admin::AdminApi, deadline::with_deadlines, download::with_downloads, faults::with_faults,
    messages::with_message_limits, signing::SigningApi, upload::UploadApi,
};
use crate::proto::FILE_DESCRIPTOR_SET;

/// Both versions of the reflection service. They describe this API, the health service and the types of error details, so
/// clients without proto files can make every call and decode every error.
///
/// # Errors
/// A descriptor set is invalid. The build does not produce such a set.
pub fn reflection() -> Result<
    (
        v1::ServerReflectionServer<impl v1::ServerReflection>,
        v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
    ),
    Error,
> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok((builder().build_v1()?, builder().build_v1alpha()?))
}

/// The paths of all calls, with those of health checks and reflection.
///
/// # Errors
/// A descriptor set is invalid. The build does not produce such a set.
pub fn call_paths() -> Result<HashSet<String>, DecodeError> {
    let mut paths: HashSet<String> = ["v1", "v1alpha"]
        .map(|version| format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"))
        .into();
    for bytes in [FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        let set = FileDescriptorSet::decode(bytes)?;
        for file in &set.file {
            for service in &file.service {
                let path = |method: &MethodDescriptorProto| {
                    format!("/{}.{}/{}", file.package(), service.name(), method.name())
                };
                paths.extend(service.method.iter().map(path));
            }
        }
    }
    Ok(paths)
}
