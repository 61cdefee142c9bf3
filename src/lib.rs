#![doc = include_str!("../docs/architecture.md")]

pub mod blobs;
pub mod call;
pub mod cli;
pub mod client;
pub mod config;
pub mod error;
pub mod faults;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod grpc;
pub mod proto;
pub mod rest;
pub mod serve;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod upload;
