//! The searches of one store, one at a time and with pauses: a search reads thousands of entries, and without pauses, many of
//! them would leave no time to short calls.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use upload_gateway_core::error::{Error, Result};

/// The longest pause after a search.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The turn of searches. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Searches(Arc<Semaphore>);

/// A search that runs. If its caller is cancelled, the next one begins.
#[derive(Debug)]
pub(super) struct Search {
    turn: OwnedSemaphorePermit,
    begun: Instant,
}

// === impl Searches ===

impl Searches {
    /// Waits for the turn.
    pub(super) async fn begin(&self) -> Result<Search> {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let turn = turn.map_err(|closed| Error::internal("search an index", closed))?;
        Ok(Search {
            turn,
            begun: Instant::now(),
        })
    }
}

impl Default for Searches {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

// === impl Search ===

impl Search {
    /// Lets the next search begin, after a pause as long as this one took.
    pub(super) fn end(self) {
        let pause = self.begun.elapsed().min(MAX_PAUSE);
        // At most one runs: it has the turn.
        tokio::spawn(async move {
            sleep(pause).await;
            drop(self.turn);
        });
    }
}
