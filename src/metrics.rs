//! What the process measures, in the text format of OpenMetrics.
//!
//! Measurements enter where faults do: decorators of the two ports, one layer around each edge, what use cases note, and a
//! snapshot that the gateway gives of its load. No other module knows of them. Every label has a bounded number of values.

mod calls;
mod families;
mod gateway;
mod stores;
mod tenants;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, fmt, sync::Arc, time::SystemTime};

use prometheus_client::{encoding::text::encode, metrics::info::Info, registry::Registry};
use upload_gateway_core::{gateway::Load, upload::Timestamp};

pub(crate) use self::{
    calls::MeasuredCall,
    stores::Observed,
    tenants::{ALL as ALL_TENANTS, MAX as MAX_TENANTS},
};
use self::{
    families::{CallLabels, Families, FileLabel, IssuerLabel, StorageLabel, begin},
    tenants::Tenants,
};
use crate::{
    certificates::Validity,
    rest::{Health, Readiness, StoreStatus},
};

/// The media type of the text.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A name that is not one of the known ones.
const OTHER: &str = "_OTHER";

/// All measurements. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Families,
    /// The methods of gRPC: all others have the label `other`.
    known_calls: HashSet<Arc<str>>,
    other: Arc<str>,
    tenants: Tenants,
}

/// What is known when the process starts.
pub(crate) struct Known<'a> {
    /// The paths of all gRPC calls.
    pub(crate) calls: HashSet<String>,
    /// The ids of all storages.
    pub(crate) storages: Vec<&'a str>,
    /// `metrics.tenants`.
    pub(crate) tenants: &'a [String],
    /// How often this process sweeps, in seconds; 0: never.
    pub(crate) sweep_interval: u64,
}

/// What is read when the measurements are.
pub(crate) struct Now<'a> {
    /// The load of the gateway.
    pub(crate) load: Load,
    /// The health of its stores.
    pub(crate) health: &'a Health,
    /// What expires.
    pub(crate) expiries: &'a Expiries,
}

/// When what the process authenticates with expires.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    /// The certificates in files, by the path of the configuration.
    pub(crate) certificates: Vec<(String, Validity)>,
    /// The credentials that sign requests to stores, by storage.
    pub(crate) credentials: Vec<(String, Timestamp)>,
    /// The keys of issuers of tokens, by issuer.
    pub(crate) issuer_keys: Vec<(String, SystemTime)>,
}

// === impl Metrics ===

impl Metrics {
    /// No measurements yet. Counters whose labels are known begin with 0, so that the first event is an increase.
    pub(crate) fn new(known: Known<'_>) -> Self {
        let mut registry = Registry::default();
        let families = Families::new(&mut registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("upload_gateway_build", "The version of the gateway", build);
        families.begin(&known.storages);
        families.sweep_interval.set(known.sweep_interval as f64);
        families.last_sweep.set(seconds(SystemTime::now()));
        let method = |path: &String| path.trim_start_matches('/').into();
        Self(Arc::new(Inner {
            registry,
            families,
            known_calls: known.calls.iter().map(method).collect(),
            other: OTHER.into(),
            tenants: Tenants::new(known.tenants),
        }))
    }

    /// The text of all measurements.
    pub(crate) fn text(&self, now: &Now<'_>) -> String {
        self.0.families.set(now);
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

impl Families {
    fn begin(&self, storages: &[&str]) {
        for edge in [calls::GRPC, calls::HTTP] {
            for fault in ["true", "false"] {
                begin(&self.calls, CallLabels { edge, fault });
            }
        }
        self.begin_gateway(storages);
    }

    /// Sets what is read from the gateway.
    fn set(&self, now: &Now<'_>) {
        let Now {
            load,
            health,
            expiries,
        } = now;
        self.set_health(health);
        self.set_expiries(expiries);
        self.streams.set(load.streams);
        self.max_streams.set(load.max_streams);
        self.waiting.set(load.waiting);
        self.reserved.set(load.reserved);
        self.budget.set(load.budget);
        self.hashing.set(load.hashing);
        self.saturation.set(load.saturation());
    }

    fn set_expiries(&self, expiries: &Expiries) {
        for (storage, at) in &expiries.credentials {
            let gauge = self.credentials_expiry.get_or_create(&label(storage));
            gauge.set(at.0 as f64 / 1_000.0);
        }
        for (file, validity) in &expiries.certificates {
            let label = FileLabel { file: file.clone() };
            let Validity {
                begins_at,
                expires_at,
            } = *validity;
            let expiry = self.certificate_expiry.get_or_create(&label);
            expiry.set(expires_at as f64);
            let lifetime = self.certificate_lifetime.get_or_create(&label);
            lifetime.set(expires_at.saturating_sub(begins_at) as f64);
        }
        for (issuer, at) in &expiries.issuer_keys {
            let issuer = issuer.clone();
            let gauge = self
                .issuer_keys_expiry
                .get_or_create(&IssuerLabel { issuer });
            gauge.set(seconds(*at));
        }
    }

    fn set_health(&self, health: &Health) {
        let answers = |status: &StoreStatus| {
            i64::from(matches!(
                status,
                StoreStatus::Available | StoreStatus::Refusing(_)
            ))
        };
        self.ready
            .set(i64::from(health.readiness == Readiness::Ready));
        self.state_available.set(answers(&health.state.status));
        for (id, store) in &health.storages {
            let available = self.storage_available.get_or_create(&label(id));
            available.set(answers(&store.status));
            let refuses = matches!(store.status, StoreStatus::Refusing(_));
            let refusing = self.storage_refusing.get_or_create(&label(id));
            refusing.set(i64::from(refuses));
        }
    }
}

fn label(storage: &str) -> StorageLabel {
    StorageLabel {
        storage: storage.to_owned(),
    }
}

fn seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
