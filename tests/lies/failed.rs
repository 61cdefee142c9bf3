//! Why a run failed.

use std::fmt;

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The caller got an error that is not to be retried.
    Final { call: &'static str, reason: String },
    /// The run does not end.
    Stuck { last: String },
    /// The object or the record is not what it must be.
    Wrong(String),
    /// Calls that destroy were sent.
    Destroyed(String),
    /// The program failed.
    Panicked(String),
}

// === impl Failed ===

impl Failed {
    /// The kind of failure, without its details.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Final { reason, .. } => format!("final {reason}"),
            Self::Stuck { .. } => "stuck".into(),
            Self::Wrong(_) => "wrong".into(),
            Self::Destroyed(_) => "destroyed".into(),
            Self::Panicked(_) => "panicked".into(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Final { call, reason } => write!(formatter, "{call} answers {reason}"),
            Self::Stuck { last } => write!(formatter, "does not end: {last}"),
            Self::Wrong(what) => write!(formatter, "wrong: {what}"),
            Self::Destroyed(calls) => write!(formatter, "destroyed: {calls}"),
            Self::Panicked(what) => write!(formatter, "panicked: {what}"),
        }
    }
}
