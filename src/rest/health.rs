//! Liveness and readiness.

use axum::{extract::State, http::StatusCode};
use tokio::sync::watch;

/// Whether the gateway can take uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// It cannot, and this is why, in words fit for anybody.
    NotReady(&'static str),
}

/// `/healthz`, which answers while the process runs.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `/readyz`, which answers 200 while the gateway can take uploads and else 503 with what is missing.
pub(super) async fn ready(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    match *health.borrow() {
        Health::Ready => (StatusCode::OK, "ready\n".into()),
        Health::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
