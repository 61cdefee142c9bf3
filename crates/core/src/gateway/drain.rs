//! The shutdown of a gateway: nothing new begins, and each stream continues to the end of its part, but not beyond the
//! deadline. A commit that has begun continues.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Reason};

/// How long parts in flight have after the deadline: their sender still gets a response.
const LAST_PARTS: Duration = Duration::from_secs(2);

/// How far the shutdown is.
#[derive(Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    deadline: CancellationToken,
}

// === impl Drain ===

impl Drain {
    /// Begins the shutdown: no stream begins, watches end, and streams end at the end of a part, once their whole parts are
    /// committed.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// The deadline: streams end wherever they are.
    pub fn end_streams(&self) {
        self.deadline.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until the shutdown begins.
    pub(super) async fn begun(&self) -> Error {
        self.begun.cancelled().await;
        draining()
    }

    /// Waits for the deadline.
    pub(super) async fn streams_end(&self) -> Error {
        self.deadline.cancelled().await;
        draining()
    }

    /// Waits until parts in flight are cancelled, too.
    pub(super) async fn parts_end(&self) {
        self.deadline.cancelled().await;
        sleep(LAST_PARTS).await;
    }
}

/// The end of a stream because the gateway shuts down.
pub(super) fn draining() -> Error {
    // Not all at once to the other gateways.
    let soon = Duration::from_secs(1).mul_f64(rand::random_range(0.5..1.5));
    Error::new(
        Kind::Unavailable,
        Reason::Draining,
        "the gateway is shutting down; resume by upload_id",
    )
    .retry_after(soon)
}
