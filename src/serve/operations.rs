//! The listener for operations: measurements, probes and limits, in plain HTTP, read-only and without authentication.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::watch;
use upload_gateway_core::gateway::Gateway;

use super::expiry::Expiry;
use crate::{
    config::Limits,
    metrics::{MEDIA_TYPE, Metrics, Now},
    rest::{self, Health},
};

/// What the listener shows.
#[derive(Clone)]
pub(super) struct Operations {
    pub(super) metrics: Metrics,
    pub(super) gateway: Arc<Gateway>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) expiry: Expiry,
    pub(super) limits: Limits,
}

// === impl Operations ===

impl Operations {
    /// The pages. Only GET and HEAD are answered.
    pub(super) fn router(self) -> Router {
        let probes = rest::probes(self.health.clone());
        Router::new()
            .route("/metrics", get(Self::metrics))
            .route("/limits", get(Self::limits))
            .with_state(self)
            .merge(probes)
            .fallback(|| async { (StatusCode::NOT_FOUND, "no such path\n") })
    }

    async fn metrics(State(this): State<Self>) -> Response {
        let expiries = this.expiry.read(&this.gateway.storages).await;
        let health = this.health.borrow().clone();
        let text = this.metrics.text(&Now {
            load: this.gateway.load(),
            health: &health,
            expiries: &expiries,
        });
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response()
    }

    async fn limits(State(this): State<Self>) -> Json<Limits> {
        Json(this.limits)
    }
}
