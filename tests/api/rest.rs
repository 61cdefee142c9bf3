//! The HTTP API, as PlaceOS clients speak it: real requests to a gateway, and signed ones to its store.

mod admission;
mod bad_input;
mod browsers;
mod client;
mod download;
mod flow;
mod openapi;
mod records;

use crate::common;
