//! What a room allows, and how it refuses more.

use std::time::Duration;

use upload_gateway_core::error::{Error, Kind, Reason};

/// When a refused call may be retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a room allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// What the room is for: `calls`, `downloads`, …
    pub(crate) what: &'static str,
    /// The key in the table `limits` that sets `total`, if there is one.
    pub(crate) limit: Option<&'static str>,
    /// How much there is.
    pub(crate) total: u32,
    /// How many places one owner has at a time, if it has a tenant.
    pub(crate) per_owner: u32,
    /// How much of `total` only the owners get that have fewer places than this, so that they need not wait for an owner with
    /// many.
    pub(crate) reserve: u32,
    /// How long a call waits for room.
    pub(crate) wait_limit: Duration,
    /// After how long without any progress of its client a place may be revoked for another one.
    pub(crate) yields_after: Duration,
    /// After how long without any progress of its client a place is revoked in any case.
    pub(crate) ends_after: Option<Duration>,
}

// === impl Rules ===

impl Rules {
    /// The error of a call for which there is no room.
    pub(super) fn exceeded(&self) -> Error {
        let Self { what, total, .. } = self;
        let message = match self.limit {
            Some(limit) => {
                format!("too many {what} at once (limits.{limit} is {total}); retry later")
            }
            None => format!("too many {what} at once (at most {total}); retry later"),
        };
        let error = overloaded(message);
        match self.limit {
            Some(limit) => error.with("limit", limit).with(limit, total),
            None => error,
        }
    }

    /// The error of a call whose owner has its share.
    pub(super) fn share_exceeded(&self) -> Error {
        let Self {
            what, per_owner, ..
        } = self;
        let limit = format!("per_owner.{}", self.limit.unwrap_or(what));
        overloaded(format!(
            "too many {what} of the caller at once (limits.{limit} is {per_owner}); retry later"
        ))
        .with("limit", limit)
    }
}

fn overloaded(message: String) -> Error {
    Error::new(Kind::ResourceExhausted, Reason::Overloaded, message)
        .retry_after(RETRY_AFTER.mul_f64(rand::random_range(0.5..1.5)))
}
