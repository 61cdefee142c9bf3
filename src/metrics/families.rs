//! All metrics: their names, types and labels.

use std::{
    hash::Hash,
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use upload_gateway_core::observe;

/// The upper bounds of the durations of calls to this process, in seconds: up to streams of hours. Each bound costs a series
/// for each set of labels.
const CALLS: [f64; 11] = [
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3_600.0,
];

/// The upper bounds of the durations of its own work, in seconds: from a round trip to Redis to a commit.
const WORK: [f64; 11] = [
    0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

pub(super) type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// Durations of calls, each bucket with the trace of the last call in it, if calls are traced.
pub(super) type CallDurations<L> =
    Family<L, HistogramWithExemplars<TraceLabel>, fn() -> HistogramWithExemplars<TraceLabel>>;

/// A number that is read from the gateway.
pub(super) type Number = Gauge<u64, AtomicU64>;

/// A number of seconds, since 1970 or between two times; or a share.
pub(super) type Real = Gauge<f64, AtomicU64>;

/// Declares the metrics. The name, type and description of each stand together, and nowhere else.
macro_rules! families {
    ($($(#[doc = $help:literal])* $name:literal $(in $unit:ident)? => $field:ident: $type:ty = $new:expr;)*) => {
        /// What is measured.
        pub(super) struct Families {
            $($(#[doc = $help])* pub(super) $field: $type,)*
        }

        impl Families {
            /// No measurements yet, in `registry`.
            pub(super) fn new(registry: &mut Registry) -> Self {
                $(
                    let $field: $type = $new;
                    let help = concat!($($help),*).trim();
                    register!(registry, $name, help, $field $(, $unit)?);
                )*
                Self { $($field,)* }
            }
        }
    };
}

macro_rules! register {
    ($registry:ident, $name:literal, $help:ident, $metric:ident) => {
        $registry.register($name, $help, $metric.clone())
    };
    ($registry:ident, $name:literal, $help:ident, $metric:ident, $unit:ident) => {
        $registry.register_with_unit($name, $help, Unit::$unit, $metric.clone())
    };
}

families! {
    /// gRPC calls, until their last trailer
    "rpc_server_call_duration" in Seconds => rpc: CallDurations<RpcLabels> = Family::new_with_constructor(call_to_process);
    /// HTTP requests, until the end of their responses
    "http_server_request_duration" in Seconds => http: CallDurations<HttpLabels> = Family::new_with_constructor(call_to_process);
    /// Calls of the API that have ended, without health checks
    "upload_gateway_calls" => calls: Family<CallLabels, Counter> = Family::default();
    /// Calls to the state store, each try by itself
    "upload_gateway_state_call_duration" in Seconds => state: CallDurations<StateLabels> = Family::new_with_constructor(call_to_store);
    /// Calls to the state store that failed, each try by itself
    "upload_gateway_state_failures" => state_failures: Family<StateFailureLabels, Counter> = Family::default();
    /// Repeated calls to the state store
    "upload_gateway_state_retries" => state_retries: Family<CauseLabel, Counter> = Family::default();
    /// Calls to blob stores, each try by itself
    "upload_gateway_store_call_duration" in Seconds => stores: CallDurations<StoreLabels> = Family::new_with_constructor(call_to_store);
    /// Calls to blob stores that failed, each try by itself
    "upload_gateway_store_failures" => store_failures: Family<StoreFailureLabels, Counter> = Family::default();
    /// Repeated calls to blob stores
    "upload_gateway_store_retries" => store_retries: Family<StoreCauseLabels, Counter> = Family::default();
    /// Parts that were put into the store and recorded
    "upload_gateway_parts" => parts: Family<StorageLabel, Counter> = Family::default();
    /// Bytes of files that this process put into the store, or read from it for downloads
    "upload_gateway_file_bytes" => file_bytes: Family<DirectionLabels, Counter> = Family::default();
    /// Uploads that were created, and that ended
    "upload_gateway_uploads" => uploads: Family<TransitionLabels, Counter> = Family::default();
    /// Bytes of uploads that became complete, streamed or signed
    "upload_gateway_completed_bytes" => completed_bytes: Family<StorageLabel, Counter> = Family::default();
    /// Uploads that were created, and that ended, by tenant
    "upload_gateway_tenant_uploads" => tenant_uploads: Family<TenantTransitionLabels, Counter> = Family::default();
    /// Bytes of uploads that became complete, by tenant
    "upload_gateway_tenant_completed_bytes" => tenant_completed_bytes: Family<TenantLabel, Counter> = Family::default();
    /// Streams that continued an upload of another stream
    "upload_gateway_takeovers" => takeovers: Counter = Counter::default();
    /// Records that the state store had lost, rebuilt from what the stores keep of them
    "upload_gateway_restored_records" => restored_records: Counter = Counter::default();
    /// Records of COMPLETE uploads that were removed from the state store to make room
    "upload_gateway_removed_records" => removed_records: Counter = Counter::default();
    /// Commits of this process
    "upload_gateway_commit_duration" in Seconds => commits: Durations<ResultLabel> = Family::new_with_constructor(of_work);
    /// Parts that are hashed or wait for that
    "upload_gateway_hashing" => hashing: Number = Number::default();
    /// From a full part to its digest, with the time in the queue
    "upload_gateway_hash_duration" in Seconds => hashes: Histogram = of_work();
    /// Runs of the sweeper of this process
    "upload_gateway_sweeps" => sweeps: Family<ResultLabel, Counter> = Family::default();
    /// Runs of the sweeper of this process
    "upload_gateway_sweep_duration" in Seconds => sweep: Histogram = of_work();
    /// What the sweeper of this process did
    "upload_gateway_swept" => swept: Family<WhatLabel, Counter> = Family::default();
    /// When the last run of the sweeper of this process succeeded; before the first one, when it started
    "upload_gateway_sweep_last_success_timestamp" in Seconds => last_sweep: Real = Real::default();
    /// sweeper.interval_seconds; 0 if the sweeper is disabled
    "upload_gateway_sweep_interval" in Seconds => sweep_interval: Real = Real::default();
    /// Whether this replica can serve
    "upload_gateway_ready" => ready: Gauge = Gauge::default();
    /// Whether the state store answers
    "upload_gateway_state_available" => state_available: Gauge = Gauge::default();
    /// Whether the store of a storage answers
    "upload_gateway_storage_available" => storage_available: Family<StorageLabel, Gauge> = Family::default();
    /// Whether the store of a storage refuses requests for a reason that only an operator can fix
    "upload_gateway_storage_refusing" => storage_refusing: Family<StorageLabel, Gauge> = Family::default();
    /// When the credentials expire with which requests to a storage are signed now
    "upload_gateway_storage_credentials_expiry_timestamp" in Seconds => credentials_expiry: Family<StorageLabel, Real> = Family::default();
    /// When the certificates in a file expire
    "upload_gateway_certificate_expiry_timestamp" in Seconds => certificate_expiry: Family<FileLabel, Real> = Family::default();
    /// How long the certificates in a file are valid in all
    "upload_gateway_certificate_lifetime" in Seconds => certificate_lifetime: Family<FileLabel, Real> = Family::default();
    /// When the keys of an issuer of tokens will be too old to be used, if they are not fetched again
    "upload_gateway_issuer_keys_expiry_timestamp" in Seconds => issuer_keys_expiry: Family<IssuerLabel, Real> = Family::default();
    /// Streams that run
    "upload_gateway_streams" => streams: Number = Number::default();
    /// limits.max_streams
    "upload_gateway_max_streams" => max_streams: Number = Number::default();
    /// Messages and parts that wait for memory
    "upload_gateway_memory_waiting" => waiting: Number = Number::default();
    /// Memory that messages and parts have reserved
    "upload_gateway_memory_reserved" in Bytes => reserved: Number = Number::default();
    /// limits.memory_budget
    "upload_gateway_memory_budget" in Bytes => budget: Number = Number::default();
    /// The fullest of streams and memory, from 0 to 1
    "upload_gateway_saturation" => saturation: Real = Real::default();
}

/// Declares sets of labels.
macro_rules! labels {
    ($($(#[$attribute:meta])* $name:ident { $($label:ident: $type:ty),* })*) => {
        $(
            $(#[$attribute])*
            #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
            pub(super) struct $name {
                $(pub(super) $label: $type,)*
            }
        )*
    };
}

labels! {
    /// The stable names of OpenTelemetry's semantic conventions.
    RpcLabels { rpc_method: Arc<str>, rpc_response_status_code: &'static str }
    /// The stable names of OpenTelemetry's semantic conventions.
    HttpLabels {
        http_request_method: &'static str,
        http_route: String,
        http_response_status_code: String,
        error_type: &'static str
    }
    /// `edge` is `grpc` or `http`, `fault` is `true` or `false`.
    CallLabels { edge: &'static str, fault: &'static str }
    StateLabels { call: &'static str }
    StateFailureLabels { call: &'static str, error_type: &'static str }
    CauseLabel { cause: &'static str }
    StoreLabels { storage: Arc<str>, call: &'static str }
    StoreFailureLabels { storage: Arc<str>, call: &'static str, error_type: &'static str }
    StoreCauseLabels { storage: String, cause: &'static str }
    StorageLabel { storage: String }
    /// `direction` is `in` or `out`.
    DirectionLabels { storage: String, direction: &'static str }
    TransitionLabels { storage: String, transition: &'static str }
    TenantTransitionLabels { tenant: String, transition: &'static str }
    TenantLabel { tenant: String }
    ResultLabel { result: &'static str }
    WhatLabel { what: &'static str }
    /// The path in the configuration.
    FileLabel { file: String }
    IssuerLabel { issuer: String }
    /// An exemplar.
    TraceLabel { trace_id: String }
}

/// Begins a counter with 0, so that its first event is an increase.
pub(super) fn begin<L: Clone + Eq + Hash>(family: &Family<L, Counter>, labels: L) {
    family.get_or_create(&labels).inc_by(0);
}

/// The trace of the running call, if it is traced.
pub(super) fn trace() -> Option<TraceLabel> {
    observe::trace_id().map(|trace_id| TraceLabel { trace_id })
}

/// Counts a call that took `seconds`.
pub(super) fn observe_call<L: Clone + Eq + Hash>(
    family: &CallDurations<L>,
    labels: &L,
    seconds: f64,
    trace: Option<TraceLabel>,
) {
    let now = trace.is_some().then(SystemTime::now);
    family.get_or_create(labels).observe(seconds, trace, now);
}

fn call_to_process() -> HistogramWithExemplars<TraceLabel> {
    HistogramWithExemplars::new(CALLS.into_iter())
}

fn call_to_store() -> HistogramWithExemplars<TraceLabel> {
    HistogramWithExemplars::new(WORK.into_iter())
}

fn of_work() -> Histogram {
    Histogram::new(WORK)
}
