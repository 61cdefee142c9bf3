//! A store that runs something else during one of its calls.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use futures::future::BoxFuture;
use upload_gateway_core::{
    blobs::BlobStore,
    decorate::{Around, Decorated},
    error::Result,
};

/// The action that runs during the call.
type Interruption = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// An action that runs after a store has made a call and before the call returns.
pub(crate) struct Interrupted {
    call: &'static str,
    /// How many more times it runs.
    left: Mutex<usize>,
    interruption: Interruption,
}

// === impl Interrupted ===

impl Interrupted {
    /// The store `inner`; `interruption` runs before each of the first `times` answers to `call`.
    pub(crate) fn store(
        inner: Arc<dyn BlobStore>,
        call: &'static str,
        times: usize,
        interruption: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Arc<dyn BlobStore> {
        Arc::new(Decorated::new(
            inner,
            Self::during(call, times, interruption),
        ))
    }

    /// What runs `interruption` before each of the first `times` answers to `call`.
    pub(crate) fn during(
        call: &'static str,
        times: usize,
        interruption: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            call,
            left: Mutex::new(times),
            interruption: Box::new(interruption),
        }
    }

    fn is_turn(&self) -> bool {
        let mut left = self.left.lock().unwrap();
        let is_turn = *left > 0;
        *left = left.saturating_sub(1);
        is_turn
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Interrupted")
    }
}

impl Around for Interrupted {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let answer = call().await;
        if name == self.call && self.is_turn() {
            (self.interruption)().await;
        }
        answer
    }
}
