//! The contracts of the ports: one suite for every state store, one for every blob store, and what they rest on.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod blob;
mod embedded_s3;
mod lifecycle;
mod search;
mod signatures;
mod state;
