//! The upload gateway.

pub mod blobs;
pub mod config;
pub mod error;
pub mod gateway;
pub mod grpc;
pub mod proto;
pub mod state;
pub mod status;
pub mod upload;
