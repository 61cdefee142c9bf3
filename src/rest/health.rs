//! Liveness and readiness.

use axum::{extract::State, http::StatusCode};
use tokio::sync::watch;

const BROKEN: &str = "the state file cannot be opened again; restart\n";

/// Whether the gateway can accept uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// It cannot. The text is public and has the cause.
    NotReady(&'static str),
    /// It cannot, and only a restart may help.
    Broken,
}

/// `/healthz`: 200 while the process runs, 503 if only a restart may help.
pub(super) async fn alive(
    State(health): State<watch::Receiver<Health>>,
) -> (StatusCode, &'static str) {
    match *health.borrow() {
        Health::Ready | Health::NotReady(_) => (StatusCode::OK, "ok\n"),
        Health::Broken => (StatusCode::SERVICE_UNAVAILABLE, BROKEN),
    }
}

/// `/readyz`: 200 while the gateway can accept uploads, otherwise 503 with the cause.
pub(super) async fn ready(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    match *health.borrow() {
        Health::Ready => (StatusCode::OK, "ready\n".into()),
        Health::NotReady(cause) => (StatusCode::SERVICE_UNAVAILABLE, format!("{cause}\n")),
        Health::Broken => (StatusCode::SERVICE_UNAVAILABLE, BROKEN.into()),
    }
}
