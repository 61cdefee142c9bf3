//! The upload gateway.

pub mod blobs;
pub mod error;
pub mod proto;
pub mod state;
pub mod upload;
