//! The port to what measures the use cases. The core names no metrics library.
//!
//! Calls to the other ports are not here: decorators measure them.

use std::{fmt::Debug, time::Duration};

use crate::{
    error::{Error, Result},
    upload::Upload,
};

/// Receives what use cases have done.
pub trait Meter: Debug + Send + Sync {
    /// Notes it. Called often, and must not block.
    fn note(&self, done: Done<'_>);
}

/// What a use case has done.
#[derive(Debug, Clone, Copy)]
pub enum Done<'a> {
    /// It repeats a request that has failed.
    Retried {
        /// The storage whose store failed; `None`: the state store.
        storage: Option<&'a str>,
        /// The failure.
        failed: &'a Error,
    },
    /// It has hashed a part, or added one to the digest of its file.
    Hashed {
        /// The time with that in the queue.
        took: Duration,
    },
    /// It has put a part of this size, in bytes, into the store and recorded it.
    Stored {
        /// The storage.
        storage: &'a str,
        /// The size of the part.
        size: u64,
    },
    /// It has read this number of bytes for a download.
    Read {
        /// The storage.
        storage: &'a str,
        /// How many bytes.
        bytes: u64,
    },
    /// It has created an upload.
    Created(&'a Upload),
    /// It has made an upload COMPLETE or ABORTED.
    Ended {
        /// The upload.
        upload: &'a Upload,
        /// How it ended, as in the log: `complete`, `expired`, and so on.
        result: &'static str,
    },
    /// It has rebuilt a record that the state store had lost.
    Restored,
    /// It has removed a record from the state store to make room; the store keeps one with the file.
    Removed,
    /// A stream writes to an upload that another stream has opened before.
    TookOver,
    /// A commit of this process has ended.
    Committed {
        /// How.
        result: &'a Result<()>,
        /// From its start.
        took: Duration,
    },
}

/// Measures nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unmeasured;

// === impl Unmeasured ===

impl Meter for Unmeasured {
    fn note(&self, _: Done<'_>) {}
}
