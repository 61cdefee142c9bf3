//! The calls to the state store and to blob stores.

use std::sync::Arc;

use tokio::time::Instant;
use upload_gateway_core::{decorate::Around, error::Result};

use super::{
    Metrics,
    families::{
        StateFailureLabels, StateLabels, StoreFailureLabels, StoreLabels, TraceLabel, observe_call,
        trace,
    },
};
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
    trace: Option<TraceLabel>,
    /// Why it failed: the kind of the error, or that the caller has left it.
    error_type: Option<&'static str>,
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
            trace: trace(),
            error_type: Some("cancelled"),
        };
        let result = call().await;
        let error = result.as_ref().err();
        running.error_type = error.map(|error| status::row(error.kind()).label);
        result
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let trace = self.trace.take();
        let families = &self.observed.metrics.0.families;
        let (_, call) = self.name.split_once('.').unwrap_or(("", self.name));
        match &self.observed.storage {
            None => {
                let labels = StateLabels { call };
                observe_call(&families.state, &labels, seconds, trace);
                if let Some(error_type) = self.error_type {
                    let labels = StateFailureLabels { call, error_type };
                    families.state_failures.get_or_create(&labels).inc();
                }
            }
            Some(storage) => {
                let labels = StoreLabels {
                    storage: Arc::clone(storage),
                    call,
                };
                observe_call(&families.stores, &labels, seconds, trace);
                if let Some(error_type) = self.error_type {
                    let labels = StoreFailureLabels {
                        storage: Arc::clone(storage),
                        call,
                        error_type,
                    };
                    families.store_failures.get_or_create(&labels).inc();
                }
            }
        }
    }
}
