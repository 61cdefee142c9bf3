//! An upload's record without its parts and claims, which have tables of their own.

use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    state::{self, Times},
    upload::{Claims, Owner, Parts, Timestamp, Upload, WriterTag},
};

/// A record as it was last created or updated, and the values that changed since.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u64,
    pub(super) writer: Option<WriterTag>,
    pub(super) committed: u32,
    /// See [`Parts::rewritten`].
    pub(super) rewritten: u64,
    /// See [`Upload::cut`].
    pub(super) cut: u8,
    /// See [`Upload::unproven`].
    pub(super) unproven: Option<u32>,
    pub(super) updated_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// The time of its entry in the table of due uploads, if it has one.
    pub(super) scheduled_at: Option<Timestamp>,
    /// The version that the last update replaced; `None` after a takeover.
    replaced: Option<u64>,
    /// The upload as the last create or update passed it, with the version it passed.
    pub(super) written: Upload,
}

// === impl Record ===

impl Record {
    /// A new record.
    pub(super) fn created(upload: Upload) -> Self {
        Self {
            version: upload.version,
            replaced: None,
            ..Self::updated(upload.clone(), &upload.parts)
        }
    }

    /// The record after an update, which keeps the parts and the claims. Of `parts` it needs only the counts.
    pub(super) fn updated(upload: Upload, parts: &Parts) -> Self {
        Self {
            version: upload.version + 1,
            writer: upload.writer,
            committed: parts.committed(),
            rewritten: parts.rewritten(),
            cut: upload.cut,
            unproven: upload.unproven,
            replaced: Some(upload.version),
            updated_at: upload.updated_at,
            expires_at: upload.expires_at,
            scheduled_at: None,
            written: header(upload),
        }
    }

    /// Whether this update was the last change: then it is repeated after a lost reply.
    pub(super) fn is_echo_of(&self, update: &Upload) -> bool {
        self.replaced == Some(update.version) && self.written == header(update.clone())
    }

    /// Makes a stream the writer.
    pub(super) fn take_over(&mut self, writer: WriterTag, times: Times) {
        self.version += 1;
        self.written.attempts += u32::from(self.writer != Some(writer));
        self.writer = Some(writer);
        self.replaced = None;
        self.set(times);
    }

    /// Gives the upload to another owner, whose creates do not find it.
    pub(super) fn give(&mut self, owner: Owner) {
        self.version += 1;
        self.replaced = None;
        self.written.owner = owner;
        self.written.fingerprint = None;
    }

    /// The counts of the parts, without parts.
    pub(super) fn counts(&self) -> Parts {
        Parts::summary(self.committed, []).with_rewritten(self.rewritten)
    }

    /// Sets the times.
    pub(super) fn set(&mut self, times: Times) {
        self.updated_at = times.now;
        self.expires_at = times.expires_at;
    }

    /// When the upload is due; see [`Upload::due_at`].
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        let upload = Upload {
            expires_at: self.expires_at,
            ..self.written.clone()
        };
        upload.due_at()
    }

    /// When the record is removed.
    pub(super) fn removed_at(&self) -> Timestamp {
        let upload = Upload {
            expires_at: self.expires_at,
            ..self.written.clone()
        };
        state::removed_at(&upload)
    }

    /// The upload in its present state, with these parts and claims.
    pub(super) fn with(self, parts: Parts, claims: Claims) -> Upload {
        Upload {
            version: self.version,
            writer: self.writer,
            cut: self.cut,
            unproven: self.unproven,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
            parts: parts.with_rewritten(self.rewritten),
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
