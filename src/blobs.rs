//! The adapters of the port [`BlobStore`](upload_gateway_core::blobs::BlobStore), and what they share.

pub mod azure;
mod renewed;
pub mod s3;
pub mod url;
