//! Faults on demand, for tests of the gateway and of its clients: a call names in a header what fails while it runs. This
//! has no effect unless `faults.enabled` is configured.
//!
//! The edge makes a [`Plan`] of the header and puts it into the [scope](crate::call) of the call. [`Faults`] decorates the
//! stores and follows the plan of the running call; [`cut()`] ends a stream.

mod cut;
mod inject;
mod plan;

pub use self::{cut::cut, inject::Faults, plan::Plan};

/// The header, or on gRPC the metadata, that names faults.
pub const HEADER: &str = "x-upload-gateway-fault";
