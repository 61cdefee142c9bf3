//! What fails, stops or races, and what becomes of the uploads.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod injected;
mod outage;
mod races;
mod resume_token;
mod slow_store;
mod sweep;
mod unconditional_store;
mod world;
