//! The generated API: messages and clients of the protos.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]

/// Package `uploadgateway.v1`.
pub mod v1 {
    tonic::include_proto!("uploadgateway.v1");
}
