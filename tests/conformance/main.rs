//! Contracts: one suite for every state store, one for every blob store, and the embedded S3 and the domain below them.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod authorities;
mod blob;
mod embedded_s3;
mod lifecycle;
mod requests;
mod search;
mod signatures;
mod state;
