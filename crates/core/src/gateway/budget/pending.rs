//! A draw that waits, and what it has done to others meanwhile.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{Draw, ledger::Grant};

/// The time between two recalls: a part that is recalled gives its bytes back well within it, and may be enough.
pub(super) const RECALL_PAUSE: Duration = Duration::from_millis(100);

/// How often a part that waits has those recalled that hold more than their share: longer than a part takes to the store.
pub(super) const SHARE_PAUSE: Duration = Duration::from_secs(1);

/// A draw that waits. What is granted when nobody waits any more goes to its part all the same.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    pub(super) draw: &'a mut Draw,
    pub(super) bytes: u64,
    pub(super) granted: oneshot::Receiver<Grant>,
}

// === impl Pending ===

impl Pending<'_> {
    /// What was granted; None when the budget's patience is over.
    pub(super) async fn wait(&mut self) -> Option<Grant> {
        let (begun, patience) = (Instant::now(), self.draw.budget.patience);
        let mut pause = SHARE_PAUSE;
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            if let Ok(grant) = timeout(pause.min(left), &mut self.granted).await {
                return grant.ok();
            }
            let waited = begun.elapsed();
            if waited >= patience {
                return None;
            }
            let mut ledger = self.draw.budget.lock();
            // Half of the time for parts that end by themselves, half for those that are recalled.
            if waited < patience / 2 {
                ledger.recall_beyond_share(self.bytes, &self.draw.owner);
                pause = SHARE_PAUSE.min(patience / 2 - waited);
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
            && let Some(memory) = self.draw.credit(grant, self.bytes)
        {
            self.draw.keep(memory);
        }
    }
}
