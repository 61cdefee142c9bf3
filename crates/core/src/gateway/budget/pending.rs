//! A draw that waits, and what it has done to others meanwhile.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{Reservation, ledger::Grant};

/// The time between two recalls: a part that is recalled gives its bytes back well within it, and may be enough.
pub(super) const RECALL_PAUSE: Duration = Duration::from_millis(100);

/// How often a part that waits has those recalled that hold more than their share: longer than a part takes to the store.
pub(super) const SHARE_PAUSE: Duration = Duration::from_secs(1);

/// A draw that waits. What is granted when nobody waits any more goes to its part all the same.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    pub(super) reservation: &'a mut Reservation,
    pub(super) bytes: u64,
    pub(super) granted: oneshot::Receiver<Grant>,
}

// === impl Pending ===

impl Pending<'_> {
    /// What was granted; None when the budget's wait_limit is over.
    pub(super) async fn wait(&mut self) -> Option<Grant> {
        let (begun, wait_limit) = (Instant::now(), self.reservation.budget.wait_limit);
        let mut pause = SHARE_PAUSE;
        loop {
            let left = wait_limit.saturating_sub(begun.elapsed());
            if let Ok(grant) = timeout(pause.min(left), &mut self.granted).await {
                return grant.ok();
            }
            let waited = begun.elapsed();
            if waited >= wait_limit {
                return None;
            }
            let mut ledger = self.reservation.budget.lock();
            // Half of the time for parts that end by themselves, half for those that are recalled.
            if waited < wait_limit / 2 {
                ledger.recall_beyond_share(self.bytes, &self.reservation.owner);
                pause = SHARE_PAUSE.min(wait_limit / 2 - waited);
            } else {
                ledger.recall(self.bytes);
                pause = RECALL_PAUSE;
            }
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Closed first: what is granted in this very moment must not be lost.
        self.granted.close();
        if let Ok(grant) = self.granted.try_recv()
            && let Some(memory) = self.reservation.credit(grant, self.bytes)
        {
            self.reservation.keep(memory);
        }
    }
}
