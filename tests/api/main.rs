//! The API as callers see it: uploads over gRPC, the HTTP API, and signed requests.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod browser;
mod grpc;
mod integrity;
mod placement;
mod rest;
mod signing;
