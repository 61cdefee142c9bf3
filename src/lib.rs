#![doc = include_str!("../docs/architecture.md")]

pub mod auth;
mod authorities;
pub mod blobs;
mod call_end;
mod certificates;
mod cgroup;
pub mod cli;
pub mod config;
mod connections;
pub mod cors;
pub mod embedded_s3;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../fuzz/checks/lib.rs"]
pub mod fuzzing;
pub mod grpc;
pub mod hosts;
mod metrics;
mod private_files;
pub mod proto;
mod reload;
mod request_id;
pub mod rest;
mod room;
pub mod seen;
pub mod serve;
pub mod state;
pub mod status;
pub mod telemetry;
mod traces;
mod unknown_format;
mod unreachable;
pub mod values;
