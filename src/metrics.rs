//! What the process measures, in the text format of OpenMetrics.
//!
//! Measurements enter where faults do: decorators of the two ports, one layer around each edge, and a snapshot that the gateway
//! gives of its load. No other module knows of them. Every label has a bounded number of values.

mod calls;
mod stores;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use upload_gateway_core::gateway::Load;

pub(crate) use self::{
    calls::{http_calls, rpc_calls},
    stores::Observed,
};
use crate::rest::{Health, Readiness, StoreStatus};

/// The media type of the text.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The upper bounds of durations, in seconds: calls of a millisecond to streams of hours.
const DURATIONS: [f64; 14] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3_600.0,
];

/// A name that is not one of the known ones.
const OTHER: &str = "_OTHER";

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// All measurements. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Families,
    /// The paths of the gRPC calls: all other paths have one label.
    known_calls: HashSet<String>,
}

type Count = Gauge<u64, AtomicU64>;

/// What is measured.
struct Families {
    rpc: Durations<RpcLabels>,
    http: Durations<HttpLabels>,
    state: Durations<StateLabels>,
    stores: Durations<StoreLabels>,
    ready: Gauge,
    state_available: Gauge,
    storage_available: Family<StorageLabel, Gauge>,
    streams: Count,
    max_streams: Count,
    waiting: Count,
    reserved: Count,
    budget: Count,
    saturation: Gauge<f64, AtomicU64>,
}

/// The stable names of OpenTelemetry's semantic conventions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    rpc_method: String,
    rpc_response_status_code: &'static str,
}

/// The stable names of OpenTelemetry's semantic conventions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: String,
    error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    call: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    storage: String,
    call: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StorageLabel {
    storage: String,
}

fn durations() -> Histogram {
    Histogram::new(DURATIONS)
}

// === impl Metrics ===

impl Metrics {
    /// No measurements yet. `known_calls` are the paths of all gRPC calls.
    pub(crate) fn new(known_calls: HashSet<String>) -> Self {
        let families = Families::default();
        let mut registry = Registry::default();
        families.register(&mut registry);
        Self(Arc::new(Inner {
            registry,
            families,
            known_calls,
        }))
    }

    /// The text of all measurements.
    pub(crate) fn text(&self, load: Load, health: &Health) -> String {
        self.0.families.set(load, health);
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Metrics")
    }
}

// === impl Families ===

impl Default for Families {
    fn default() -> Self {
        let new = durations as fn() -> Histogram;
        Self {
            rpc: Family::new_with_constructor(new),
            http: Family::new_with_constructor(new),
            state: Family::new_with_constructor(new),
            stores: Family::new_with_constructor(new),
            ready: Gauge::default(),
            state_available: Gauge::default(),
            storage_available: Family::default(),
            streams: Count::default(),
            max_streams: Count::default(),
            waiting: Count::default(),
            reserved: Count::default(),
            budget: Count::default(),
            saturation: Gauge::default(),
        }
    }
}

impl Families {
    fn register(&self, registry: &mut Registry) {
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "rpc_server_call_duration",
            "gRPC calls, until their last trailer",
            seconds(),
            self.rpc.clone(),
        );
        registry.register_with_unit(
            "http_server_request_duration",
            "HTTP requests, until the end of their responses",
            seconds(),
            self.http.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let own = registry.sub_registry_with_prefix("upload_gateway");
        own.register("build", "The version of the gateway", build);
        own.register_with_unit(
            "state_call_duration",
            "Calls to the state store, each try by itself",
            seconds(),
            self.state.clone(),
        );
        own.register_with_unit(
            "store_call_duration",
            "Calls to blob stores, each try by itself",
            seconds(),
            self.stores.clone(),
        );
        own.register(
            "ready",
            "Whether this replica can serve",
            self.ready.clone(),
        );
        own.register(
            "state_available",
            "Whether the state store answers",
            self.state_available.clone(),
        );
        own.register(
            "storage_available",
            "Whether the store of a storage answers",
            self.storage_available.clone(),
        );
        own.register("streams", "Streams that run", self.streams.clone());
        own.register(
            "max_streams",
            "limits.max_streams",
            self.max_streams.clone(),
        );
        own.register(
            "memory_waiting",
            "Messages and parts that wait for memory",
            self.waiting.clone(),
        );
        own.register_with_unit(
            "memory_reserved",
            "Memory that messages and parts have reserved",
            Unit::Bytes,
            self.reserved.clone(),
        );
        own.register_with_unit(
            "memory_budget",
            "limits.memory_budget",
            Unit::Bytes,
            self.budget.clone(),
        );
        own.register(
            "saturation",
            "The fullest of streams and memory, from 0 to 1",
            self.saturation.clone(),
        );
    }

    /// Sets what is read from the gateway.
    fn set(&self, load: Load, health: &Health) {
        let is_available = |status: &StoreStatus| {
            i64::from(matches!(
                status,
                StoreStatus::Available | StoreStatus::Refusing(_)
            ))
        };
        self.ready
            .set(i64::from(health.readiness == Readiness::Ready));
        self.state_available.set(is_available(&health.state.status));
        for (id, store) in &health.storages {
            let label = StorageLabel {
                storage: id.clone(),
            };
            let gauge = self.storage_available.get_or_create(&label);
            gauge.set(is_available(&store.status));
        }
        self.streams.set(load.streams);
        self.max_streams.set(load.max_streams);
        self.waiting.set(load.waiting);
        self.reserved.set(load.reserved);
        self.budget.set(load.budget);
        self.saturation.set(load.saturation());
    }
}
