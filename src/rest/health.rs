//! Liveness and readiness.

use std::fmt;

use axum::{extract::State, http::StatusCode};
use tokio::sync::watch;
use upload_gateway_core::upload::Timestamp;

pub(super) const ALIVE: &str = "/healthz";
pub(super) const READY: &str = "/readyz";

/// The paths of this module.
pub(super) const PATHS: [&str; 2] = [ALIVE, READY];

const BROKEN: &str = "the state file cannot be opened again; restart\n";

/// Whether the gateway can accept uploads, and which of its stores fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it can accept uploads.
    pub readiness: Readiness,
    /// The stores that fail. One that answers and refuses some requests does not make the gateway unready.
    pub failing: Vec<Failing>,
}

/// Whether the gateway can accept uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot. The text is public and has the cause.
    NotReady(&'static str),
    /// It cannot, and only a restart may help.
    Broken,
}

/// A store that fails. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Its name: `state`, or `storage` and its id.
    pub store: String,
    /// The store's error code, or a few words if it gave none.
    pub problem: String,
    /// When that was first seen.
    pub since: Timestamp,
}

/// `/healthz`: 200 while the process runs, 503 if only a restart may help.
pub(super) async fn alive(
    State(health): State<watch::Receiver<Health>>,
) -> (StatusCode, &'static str) {
    match health.borrow().readiness {
        Readiness::Ready | Readiness::NotReady(_) => (StatusCode::OK, "ok\n"),
        Readiness::Broken => (StatusCode::SERVICE_UNAVAILABLE, BROKEN),
    }
}

/// `/readyz`: 200 while the gateway can accept uploads, otherwise 503 with the cause. Then one line for each store that
/// fails.
pub(super) async fn ready(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    let health = health.borrow();
    let (status, mut text) = match health.readiness {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(cause) => (StatusCode::SERVICE_UNAVAILABLE, format!("{cause}\n")),
        Readiness::Broken => (StatusCode::SERVICE_UNAVAILABLE, BROKEN.to_owned()),
    };
    for failing in &health.failing {
        text.push_str(&format!("{failing}\n"));
    }
    (status, text)
}

// === impl Health ===

impl From<Readiness> for Health {
    fn from(readiness: Readiness) -> Self {
        Self {
            readiness,
            failing: Vec::new(),
        }
    }
}

// === impl Failing ===

impl fmt::Display for Failing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = prost_types::Timestamp {
            seconds: i64::try_from(self.since.0 / 1000).unwrap_or(i64::MAX),
            nanos: 0,
        };
        write!(formatter, "{}: {} since {since}", self.store, self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_names_each_store_that_fails_with_its_code_and_since_when() {
        let failing = ["state", "storage media"].map(|store| Failing {
            store: store.into(),
            problem: "NoSuchBucket".into(),
            since: Timestamp(1_000_999),
        });
        let line = |store: &str| format!("{store}: NoSuchBucket since 1970-01-01T00:16:40Z\n");
        let lines = format!("{}{}", line("state"), line("storage media"));
        for (readiness, status, first) in [
            (Readiness::Ready, 200, "ready\n"),
            (Readiness::NotReady("draining"), 503, "draining\n"),
            (Readiness::Broken, 503, BROKEN),
        ] {
            let (_, health) = watch::channel(Health {
                readiness,
                failing: failing.to_vec(),
            });
            let (code, text) = ready(State(health)).await;
            assert_eq!((code.as_u16(), text), (status, format!("{first}{lines}")));
        }
    }
}
