//! The core of the upload gateway: the domain, the ports to the stores, and the use cases. It depends on no wire
//! format, no SDK and no database.

pub mod blobs;
pub mod call;
pub mod clock;
pub mod decorate;
pub mod error;
pub mod escape;
pub mod faults;
pub mod gateway;
pub mod meter;
pub mod observe;
pub mod retry;
pub mod seal;
pub mod state;
pub mod upload;
