//! The retry budget of one store.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The number of retries that each second adds to the retry budget: enough to notice that a store is available again.
const RETRIES_PER_SECOND: f64 = 10.0;

/// The largest number of retries in the budget.
const MOST_RETRIES: f64 = 100.0;

/// The retry budget of one store: how many retries the process may make. It keeps the callers that wait during an outage
/// from making the outage worse.
#[derive(Debug)]
pub(super) struct RetryBudget(Mutex<Allowance>);

#[derive(Debug)]
struct Allowance {
    retries: f64,
    at: Instant,
}

// === impl RetryBudget ===

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Allowance {
            retries: MOST_RETRIES,
            at: Instant::now(),
        }))
    }

    pub(super) fn allow(&self, retries: f64) {
        self.change(retries);
    }

    /// Takes one retry, if the budget has one left.
    pub(super) fn take(&self) -> bool {
        self.change(-1.0)
    }

    /// Adds to the budget, or takes from it if it has enough. Returns whether it had enough.
    fn change(&self, retries: f64) -> bool {
        let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = (now - allowance.at).as_secs_f64() * RETRIES_PER_SECOND;
        allowance.at = now;
        allowance.retries = (allowance.retries + earned).min(MOST_RETRIES);
        let is_enough = allowance.retries + retries >= 0.0;
        if is_enough {
            allowance.retries += retries;
        }
        is_enough
    }
}
