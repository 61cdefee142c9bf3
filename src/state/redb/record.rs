//! An upload's record, without what has tables of its own.

use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    state::Times,
    upload::{Claims, Parts, Timestamp, Upload, WriterTag},
};

/// A record as it was last created or updated, and what has changed since.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u64,
    pub(super) writer: Option<WriterTag>,
    pub(super) committed: u32,
    pub(super) updated_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// Under which time it is entered among what is due, if it is.
    #[serde(default)]
    pub(super) expected_at: Option<Timestamp>,
    /// The version that the last update replaced, until a stream takes over.
    replaced: Option<u64>,
    /// As it was given, under the version it was given with.
    pub(super) written: Upload,
}

// === impl Record ===

impl Record {
    /// A new record.
    pub(super) fn created(upload: Upload) -> Self {
        Self {
            version: upload.version,
            replaced: None,
            ..Self::updated(upload.clone(), upload.parts.committed())
        }
    }

    /// The record after an update that keeps its parts, of which so many are committed, and its claims.
    pub(super) fn updated(upload: Upload, committed: u32) -> Self {
        Self {
            version: upload.version + 1,
            writer: upload.writer,
            committed,
            replaced: Some(upload.version),
            updated_at: upload.updated_at,
            expires_at: upload.expires_at,
            expected_at: None,
            written: header(upload),
        }
    }

    /// Whether it is what this update left.
    pub(super) fn is_echo_of(&self, update: &Upload) -> bool {
        self.replaced == Some(update.version) && self.written == header(update.clone())
    }

    /// Gives it to a stream.
    pub(super) fn take_over(&mut self, writer: WriterTag, times: Times) {
        self.version += 1;
        self.writer = Some(writer);
        self.replaced = None;
        self.set(times);
    }

    /// Sets the times.
    pub(super) fn set(&mut self, times: Times) {
        self.updated_at = times.now;
        self.expires_at = times.expires_at;
    }

    /// When somebody has to look at the upload as it now is.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        let upload = Upload {
            expires_at: self.expires_at,
            ..self.written.clone()
        };
        upload.due_at()
    }

    /// The upload as it now is, with these parts and claims.
    pub(super) fn with(self, parts: Parts, claims: Claims) -> Upload {
        Upload {
            version: self.version,
            writer: self.writer,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
            parts,
            claims,
            ..self.written
        }
    }
}

/// The upload without its parts and claims.
fn header(upload: Upload) -> Upload {
    Upload {
        parts: Parts::default(),
        claims: Claims::default(),
        ..upload
    }
}
