//! What notes are about.

use std::fmt;

/// A small text that all replicas share. Its text form is unique, and state stores keep it under that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The stops of new uploads.
    Stops,
    /// How the store of the storage with this id proves what it receives.
    Integrity(String),
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stops => formatter.write_str("stops"),
            Self::Integrity(storage_id) => write!(formatter, "integrity:{storage_id}"),
        }
    }
}
