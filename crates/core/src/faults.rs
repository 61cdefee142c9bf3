//! Fault injection, for tests of the gateway and of its clients. A caller names in a header which calls to the stores
//! fail while its own call runs. Has no effect unless `faults.enabled` is configured.
//!
//! The edge parses the header into a [`Plan`] and adds it to the [scope](crate::call) of the call. [`Faults`] decorates
//! the stores and follows the plan of the running call. [`cut()`] ends a stream early.

mod cut;
mod inject;
mod plan;

pub use self::{cut::cut, inject::Faults, plan::Plan};

/// The header, or on gRPC the metadata, that names the faults.
pub const HEADER: &str = "x-upload-gateway-fault";
