//! Streams over gRPC.

mod bad_input;
mod hardening;
mod stores;
mod takeover;
mod upload;
