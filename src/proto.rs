//! The generated servers of the protos, and their descriptors. The messages are in [`upload_gateway_client::proto`].

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

mod codec;

pub use self::codec::RequestCodec;

/// Package `uploadgateway.v1`.
pub mod v1 {
    tonic::include_proto!("uploadgateway.v1");
}

/// The encoded descriptors of package `uploadgateway.v1` and its imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/uploadgateway.v1.bin"));
