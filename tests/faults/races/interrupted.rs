//! A store during one of whose calls something else happens.

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

/// What happens meanwhile.
type Interruption = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Something that happens after a store has carried out a call, and before it answers.
pub(crate) struct Interrupted {
    call: &'static str,
    /// How many more times it happens.
    left: Mutex<usize>,
    interruption: Interruption,
}

// === impl Interrupted ===

impl Interrupted {
    /// The store `inner`; before the first `times` answers to `call`, `interruption` happens.
    pub(crate) fn store(
        inner: Arc<dyn BlobStore>,
        call: &'static str,
        times: usize,
        interruption: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Arc<dyn BlobStore> {
        let around = Self {
            call,
            left: Mutex::new(times),
            interruption: Box::new(interruption),
        };
        Arc::new(Decorated::new(inner, around))
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
