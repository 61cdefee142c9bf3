//! The calls to the state store and to blob stores.

use std::sync::Arc;

use opentelemetry::KeyValue;
use upload_gateway_core::{call, decorate::Around, error::Result};

use super::{
    observer::{Parent, outcome},
    span::{CANCELLED, Outcome, Running},
};

/// Traces each call to a store that belongs to a traced call.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    /// The id of the storage; `None`: it is the state store.
    storage: Option<Arc<str>>,
}

/// A call that runs. Its span ends when this is dropped.
struct RunningCall {
    parent: Arc<Parent>,
    span: Option<Running>,
    /// The caller may leave it before it ends.
    outcome: Outcome,
}

// === impl Traced ===

impl Traced {
    /// Traces the state store.
    pub(crate) fn state() -> Self {
        Self { storage: None }
    }

    /// Traces the store of a storage.
    pub(crate) fn storage(id: &str) -> Self {
        let storage = Some(id.into());
        Self { storage }
    }
}

impl Around for Traced {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let Some(parent) = call::current::<Parent>() else {
            return call().await;
        };
        let storage = self.storage.as_ref();
        let storage = storage.map(|id| KeyValue::new("storage", Arc::clone(id)));
        let mut running = RunningCall {
            span: Some(parent.begin(name).with(storage)),
            parent,
            outcome: Outcome::Left(CANCELLED.into()),
        };
        let result = call().await;
        running.outcome = outcome(&result);
        result
    }
}

// === impl RunningCall ===

impl Drop for RunningCall {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.parent.take(span.end(self.outcome.clone(), Vec::new()));
        }
    }
}
