//! The calls to the state store and to blob stores.

use std::sync::Arc;

use tokio::time::Instant;
use upload_gateway_core::{decorate::Around, error::Result};

use super::{Metrics, StateLabels, StoreLabels};
use crate::status;

/// Measures each call to a store.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    metrics: Metrics,
    /// The id of the storage; `None`: it is the state store.
    storage: Option<Arc<str>>,
}

/// A call that runs. It is counted when this is dropped.
struct Running<'a> {
    observed: &'a Observed,
    name: &'static str,
    begun: Instant,
    /// The caller may leave it before it ends.
    result: &'static str,
}

// === impl Observed ===

impl Observed {
    /// Measures the state store.
    pub(crate) fn state(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            storage: None,
        }
    }

    /// Measures the store of a storage.
    pub(crate) fn storage(metrics: &Metrics, id: &str) -> Self {
        Self {
            metrics: metrics.clone(),
            storage: Some(id.into()),
        }
    }
}

impl Around for Observed {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let mut running = Running {
            observed: self,
            name,
            begun: Instant::now(),
            result: "cancelled",
        };
        let result = call().await;
        running.result = match &result {
            Ok(_) => "ok",
            Err(error) => status::row(error.kind()).label,
        };
        result
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let families = &self.observed.metrics.0.families;
        let (_, call) = self.name.split_once('.').unwrap_or(("", self.name));
        let result = self.result;
        match &self.observed.storage {
            None => {
                let labels = StateLabels { call, result };
                families.state.get_or_create(&labels).observe(seconds);
            }
            Some(storage) => {
                let labels = StoreLabels {
                    storage: storage.to_string(),
                    call,
                    result,
                };
                families.stores.get_or_create(&labels).observe(seconds);
            }
        }
    }
}
