//! The HTTP API as PlaceOS clients use it: real requests to a gateway, and signed ones to its store.

mod admission;
mod bad_input;
mod browsers;
pub(crate) mod client;
mod demo;
mod download;
mod flow;
mod lost_records;
mod newer_client;
mod openapi;
mod records;
mod recovery;

use crate::common;
