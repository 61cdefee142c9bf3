//! Liveness and readiness.

use axum::{extract::State, http::StatusCode};
use tokio::sync::watch;

/// Whether the gateway can accept uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// It cannot. The text is public and has the cause.
    NotReady(&'static str),
}

/// `/healthz`: 200 while the process runs.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// `/readyz`: 200 while the gateway can accept uploads, otherwise 503 with the cause.
pub(super) async fn ready(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    match *health.borrow() {
        Health::Ready => (StatusCode::OK, "ready\n".into()),
        Health::NotReady(cause) => (StatusCode::SERVICE_UNAVAILABLE, format!("{cause}\n")),
    }
}
