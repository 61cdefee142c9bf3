//! What is known of a store beside the recorded parts. One negative answer destroys nothing: only a second observation,
//! made some time later, decides.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What is known of the store beside the recorded parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// What the store denied when it was last observed, until a second observation decides.
    pub denial: Option<Denial>,
    /// Whether a commit was sent or signed.
    pub is_commit_sent: bool,
    /// Until when a commit whose response was lost can still run in the store.
    pub commit_runs_until: Option<Timestamp>,
    /// Whether the store acknowledged the commit. An object that is missing after that is no proof of a lost session.
    pub is_acknowledged: bool,
}

/// What the store denied when it was observed, and when a second observation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// What the store denied.
    pub denied: Denied,
    /// From when on an observation that agrees is the second one.
    pub settles_at: Timestamp,
}

/// What a store can deny about an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// It does not know the session, and has no object.
    Session,
    /// It does not have a recorded part, or does not accept the parts, and has no object.
    Parts,
    /// The object under the key is another one than the upload makes.
    Object,
    /// There is no object, although a commit was sent or signed.
    NoObject,
}
