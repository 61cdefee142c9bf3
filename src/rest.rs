//! The HTTP edge: liveness and readiness.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::sync::watch;

/// Serves `/healthz`, which answers while the process runs, and `/readyz`, which answers 200 while the gateway can take
/// uploads and else 503 with what is missing.
pub fn router(health: watch::Receiver<Health>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(health)
}

/// Whether the gateway can take uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// It cannot, and this is why, in words fit for anybody.
    NotReady(&'static str),
}

async fn ready(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    match *health.borrow() {
        Health::Ready => (StatusCode::OK, "ready\n".into()),
        Health::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
