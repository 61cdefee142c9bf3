//! Streams over gRPC.

mod bad_input;
mod conflicts;
mod digests;
mod downloads;
mod frames;
mod full_state;
mod open_uploads;
mod places;
pub(crate) mod records;
mod storages;
mod stores;
mod takeover;
mod upload;
mod watching;
