//! Notices that a file changes while it is sent.

use std::{fs::Metadata, time::SystemTime};

use crate::error::ClientError;

/// The size and the modification time of a file when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// In bytes.
    pub(crate) size: u64,
    /// None where the file system has no modification times.
    pub(crate) modified: Option<SystemTime>,
}

// === impl Stamp ===

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }

    /// Checks what the file has become.
    ///
    /// # Errors
    /// `FileChanged` if it has another size or modification time.
    pub(crate) fn check(&self, metadata: &Metadata) -> Result<(), ClientError> {
        let now = Self::of(metadata);
        if now.size != self.size {
            let change = format!("it had {} bytes, now it has {}", self.size, now.size);
            return Err(ClientError::FileChanged { change });
        }
        if now.modified != self.modified {
            let change = "its modification time is another one".into();
            return Err(ClientError::FileChanged { change });
        }
        Ok(())
    }

    /// Checks where the file ended when it was read.
    ///
    /// # Errors
    /// `FileChanged` if it does not end at its size.
    pub(crate) fn check_end(&self, end: u64) -> Result<(), ClientError> {
        if end == self.size {
            return Ok(());
        }
        let less_or_more = if end < self.size { "fewer" } else { "more" };
        Err(ClientError::FileChanged {
            change: format!("it has {less_or_more} bytes than its size of {}", self.size),
        })
    }
}
