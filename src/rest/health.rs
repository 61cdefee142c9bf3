//! Liveness and readiness.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::sync::watch;
use upload_gateway_core::upload::Timestamp;

pub(super) const ALIVE: &str = "/healthz";
pub(super) const READY: &str = "/readyz";

/// The paths of this module.
pub(super) const PATHS: [&str; 2] = [ALIVE, READY];

/// Why only a restart may help.
const BROKEN: &str = "the state file cannot be opened again; restart";

/// Whether this replica can serve, and the state of its stores. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether this replica can serve.
    pub readiness: Readiness,
    /// Since when.
    pub since: Timestamp,
    /// The state store.
    pub state: StoreHealth,
    /// The storages with their ids, in the order of the configuration.
    pub storages: Vec<(String, StoreHealth)>,
}

/// Whether this replica can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot. The text is public and has the cause.
    NotReady(&'static str),
    /// It cannot, and only a restart may help.
    Broken,
}

/// The health of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// How the last check ended.
    pub status: StoreStatus,
    /// Since when the status has not changed.
    pub since: Timestamp,
    /// Whether any check since the start of the process has succeeded.
    pub was_reached: bool,
}

/// How a store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStatus {
    /// It was not checked yet.
    Unknown,
    /// The check succeeds.
    Available,
    /// The check succeeds, but other requests are refused with this error code, and an operator must fix it.
    Refusing(String),
    /// The check fails: the store's error code, or a few words if it gave none.
    Unavailable(String),
    /// Its file cannot be opened again, and only a restart may help.
    Broken,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Body<'a> {
    status: &'static str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    state: StoreBody<'a>,
    storages: Vec<StoreBody<'a>>,
}

#[derive(Serialize)]
struct StoreBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    status: &'static str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

/// `/healthz`: 200 while the process runs, 503 if only a restart may help.
pub(super) async fn alive(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    match health.borrow().readiness {
        Readiness::Ready | Readiness::NotReady(_) => (StatusCode::OK, "ok\n".into()),
        Readiness::Broken => (StatusCode::SERVICE_UNAVAILABLE, format!("{BROKEN}\n")),
    }
}

/// `/readyz`: 200 while this replica can serve, otherwise 503 with the cause; with the state of each store.
pub(super) async fn ready(State(health): State<watch::Receiver<Health>>) -> Response {
    let health = health.borrow();
    let (code, status, cause) = match health.readiness {
        Readiness::Ready => (StatusCode::OK, "ready", None),
        Readiness::NotReady(cause) => (StatusCode::SERVICE_UNAVAILABLE, "not ready", Some(cause)),
        Readiness::Broken => (StatusCode::SERVICE_UNAVAILABLE, "not ready", Some(BROKEN)),
    };
    let storages = health.storages.iter();
    let body = Body {
        status,
        since: text(health.since),
        cause,
        state: health.state.body(None),
        storages: storages.map(|(id, store)| store.body(Some(id))).collect(),
    };
    // With a line end, for people that call it in a terminal.
    let text = serde_json::to_string(&body).unwrap_or_default() + "\n";
    let json = [(header::CONTENT_TYPE, "application/json")];
    (code, json, text).into_response()
}

fn text(time: Timestamp) -> String {
    let time = prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: 0,
    };
    time.to_string()
}

// === impl StoreHealth ===

impl StoreHealth {
    /// That of a store that was not checked until `now`.
    pub fn unknown(now: Timestamp) -> Self {
        Self {
            status: StoreStatus::Unknown,
            since: now,
            was_reached: false,
        }
    }

    fn body<'a>(&'a self, id: Option<&'a str>) -> StoreBody<'a> {
        let (status, cause) = match &self.status {
            StoreStatus::Unknown => ("unknown", None),
            StoreStatus::Available => ("available", None),
            StoreStatus::Refusing(code) => ("refusing requests", Some(code.as_str())),
            StoreStatus::Unavailable(cause) => ("unavailable", Some(cause.as_str())),
            StoreStatus::Broken => ("unavailable", Some("cannot be opened again")),
        };
        StoreBody {
            id,
            status,
            since: text(self.since),
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn readiness_has_the_status_of_each_store_and_since_when() {
        let store = |status| StoreHealth {
            status,
            since: Timestamp(1_000_999),
            was_reached: true,
        };
        for (readiness, code, status, cause) in [
            (Readiness::Ready, 200, "ready", None),
            (
                Readiness::NotReady("draining"),
                503,
                "not ready",
                Some("draining"),
            ),
            (Readiness::Broken, 503, "not ready", Some(BROKEN)),
        ] {
            let (_, health) = watch::channel(Health {
                readiness,
                since: Timestamp(0),
                state: store(StoreStatus::Available),
                storages: vec![
                    (
                        "a".into(),
                        store(StoreStatus::Unavailable("NoSuchBucket".into())),
                    ),
                    (
                        "b".into(),
                        store(StoreStatus::Refusing("AccessDenied".into())),
                    ),
                ],
            });
            let answered = ready(State(health)).await;
            let answered_code = answered.status().as_u16();
            let body = to_bytes(answered.into_body(), 4096).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let since = "1970-01-01T00:16:40Z";
            let mut expected = serde_json::json!({
                "status": status,
                "since": "1970-01-01T00:00:00Z",
                "state": {"status": "available", "since": since},
                "storages": [
                    {"id": "a", "status": "unavailable", "since": since, "cause": "NoSuchBucket"},
                    {"id": "b", "status": "refusing requests", "since": since, "cause": "AccessDenied"},
                ],
            });
            if let Some(cause) = cause {
                expected["cause"] = cause.into();
            }
            assert_eq!((answered_code, body), (code, expected));
        }
    }
}
