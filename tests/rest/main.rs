//! The HTTP API, as PlaceOS clients speak it: real requests to a gateway, and signed ones to its store.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod admission;
mod bad_input;
mod browsers;
mod client;
mod download;
mod flow;
mod openapi;
mod records;
