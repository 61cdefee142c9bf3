//! The current time.

use std::fmt::Debug;

use crate::upload::Timestamp;

/// Reports the current time; injected so that tests control it.
pub trait Clock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// A clock that is stopped.
impl Clock for Timestamp {
    fn now(&self) -> Timestamp {
        *self
    }
}
