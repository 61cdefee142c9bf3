//! Faults, outages, races and expiry, and their effect on uploads.

#![allow(clippy::unwrap_used, reason = "a failure fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod copies;
mod crashes;
mod dropped_headers;
mod injected;
mod lost_state;
mod object_records;
mod outage;
mod pieces;
mod races;
mod record_memory;
mod resume_token;
mod rotated_keys;
mod slow_link;
mod slow_store;
mod small_budget;
mod small_files;
mod store_copies;
mod sweep;
mod unconditional_store;
mod world;
