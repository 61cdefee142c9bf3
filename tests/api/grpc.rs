//! Streams over gRPC.

mod bad_input;
mod conflicts;
mod stores;
mod takeover;
mod upload;
mod watching;
