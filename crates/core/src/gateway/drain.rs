//! The drain of a gateway. No stream starts, and running streams end at the end of their current part, or at the
//! deadline. A commit that takes longer than a moment is left to the store: the next stream that opens the upload joins it.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Reason};

/// How long parts in flight may take after the deadline. Their sender still gets a response.
const LAST_PARTS: Duration = Duration::from_secs(2);

/// How long running commits may take once the drain has begun. Most take milliseconds; a Complete of a large object can
/// take minutes, which no drain has.
const LAST_COMMITS: Duration = Duration::from_secs(2);

/// The progress of the drain.
#[derive(Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    deadline: CancellationToken,
}

// === impl Drain ===

impl Drain {
    /// Starts the drain: no stream starts, watches end, and each stream ends at the end of its part, when its whole
    /// parts are committed.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Marks the deadline: all streams end.
    pub fn end_streams(&self) {
        self.deadline.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until the drain starts.
    pub async fn begun(&self) -> Error {
        self.begun.cancelled().await;
        draining()
    }

    /// Waits for the deadline.
    pub(super) async fn streams_end(&self) -> Error {
        self.deadline.cancelled().await;
        draining()
    }

    /// Waits until running commits are left to the store.
    pub(super) async fn commits_end(&self) -> Error {
        self.begun.cancelled().await;
        sleep(LAST_COMMITS).await;
        draining()
    }

    /// Waits until parts in flight must be cancelled.
    pub(super) async fn parts_end(&self) {
        self.deadline.cancelled().await;
        sleep(LAST_PARTS).await;
    }
}

/// The error that ends a stream because the gateway drains.
pub(super) fn draining() -> Error {
    // Spread out, so that not all clients reach the other gateways at the same time.
    let soon = Duration::from_secs(1).mul_f64(rand::random_range(0.5..1.5));
    Error::new(
        Kind::Unavailable,
        Reason::Draining,
        "the gateway is shutting down; resume by upload_id",
    )
    .retry_after(soon)
}
