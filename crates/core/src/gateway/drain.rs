//! The end of a gateway: nothing new begins, each stream goes on to the border of its part, and none beyond the latest
//! moment. What has begun to commit goes on.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::error::{Error, Kind, Reason};

/// How long parts that are on their way have after the latest moment: their sender still has to be told.
const LAST_PARTS: Duration = Duration::from_secs(2);

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct Drain {
    begun: CancellationToken,
    over: CancellationToken,
}

// === impl Gateway ===

impl Gateway {
    /// Begins the end: no stream begins, watches end, and streams that are being received end at the border of a part,
    /// once their whole parts are committed.
    pub fn drain(&self) {
        self.drain.begun.cancel();
    }

    /// The latest moment: streams end wherever they are.
    pub fn end_streams(&self) {
        self.drain.over.cancel();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.begun.is_cancelled()
    }

    /// Waits until the gateway drains, and says so.
    pub(super) async fn drained(&self) -> Error {
        self.drain.begun.cancelled().await;
        draining()
    }

    /// Waits for the latest moment, and says so.
    pub(super) async fn ended(&self) -> Error {
        self.drain.over.cancelled().await;
        draining()
    }

    /// Waits until parts that are on their way can be waited for no longer.
    pub(super) async fn cut_off(&self) {
        self.drain.over.cancelled().await;
        sleep(LAST_PARTS).await;
    }
}

/// What a stream is told that ends because the gateway does.
pub(super) fn draining() -> Error {
    // Not all at once to the gateways that are left.
    let soon = Duration::from_secs(1).mul_f64(rand::random_range(0.5..1.5));
    Error::new(
        Kind::Unavailable,
        Reason::Draining,
        "the gateway is shutting down; resume by upload_id",
    )
    .retry_after(soon)
}
