//! The current time.

use std::fmt::Debug;

use crate::upload::Timestamp;

/// Reports the current time. Passed in, so that tests control the time.
pub trait Clock: Send + Sync + Debug {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// A stopped clock: always reports this time.
impl Clock for Timestamp {
    fn now(&self) -> Timestamp {
        *self
    }
}
