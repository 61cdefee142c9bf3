//! The HTTP edge: parse, ask the gateway, convert.
//!
//! Below [`BASE`] are the paths, verbs, parameters and JSON of PlaceOS's resumable uploads. Parameters come in the query,
//! in a JSON body, or in both; the query wins. What a call takes and answers is told by its OpenAPI document, which is
//! made from the handlers and their types.

mod admission;
mod download;
mod failure;
mod faults;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../fuzz/checks/rest.rs"]
pub mod fuzzing;
mod health;
mod openapi;
mod parameters;
mod records;
mod request;
mod settings;
mod shapes;
mod uploads;
mod values;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, Method, StatusCode, header},
    middleware::from_fn_with_state,
    routing::{get, patch},
};
use tokio::sync::watch;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use upload_gateway_core::gateway::{Caller, Gateway};

use self::failure::Failure;
pub use self::{
    faults::with_faults,
    health::Health,
    settings::{CorsOrigin, PartDataForm, Settings},
};

/// Where the uploads are.
pub const BASE: &str = "/api/engine/v2/uploads";

/// How long a browser may remember what it was allowed: an hour, less than any browser's own limit.
const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// What the handlers share.
#[derive(Debug, Clone)]
struct Api {
    gateway: Arc<Gateway>,
    part_data: PartDataForm,
}

/// Serves the uploads of `gateway`, and its health.
pub fn router(
    gateway: Arc<Gateway>,
    settings: &Settings,
    health: watch::Receiver<Health>,
) -> Router {
    let api = Api {
        gateway,
        part_data: settings.part_data,
    };
    let at = |path: &str| format!("{BASE}{path}");
    let collection = get(records::list).post(uploads::create);
    let one = patch(uploads::update)
        .put(uploads::complete)
        .delete(uploads::remove);
    let router = Router::new()
        .route(&at(""), collection.clone())
        .route(&at("/"), collection)
        .route(&at("/new"), get(uploads::residence))
        .route(&at("/openapi.json"), get(openapi::serve))
        .route(&at("/{id}"), one)
        .route(&at("/{id}/edit"), get(uploads::edit))
        .route(&at("/{id}/url"), get(download::url))
        .route(&at("/{id}/download"), get(download::download))
        // Health is answered also by a gateway that is full.
        .route_layer(from_fn_with_state(admission::room(), admission::admit))
        .with_state(api)
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready).with_state(health))
        .fallback(|| async { Failure::Refused(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Failure::Refused(StatusCode::METHOD_NOT_ALLOWED, "not a method of this path")
        });
    if settings.cors_origins.is_empty() {
        return router;
    }
    router.layer(cors(&settings.cors_origins))
}

/// Without authentication everybody is the same caller.
fn caller() -> Caller {
    Caller::default()
}

fn cors(origins: &[CorsOrigin]) -> CorsLayer {
    let allowed = if origins.iter().any(CorsOrigin::is_any) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(CorsOrigin::header).cloned())
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PATCH,
            Method::PUT,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            HeaderName::from_static(records::TOTAL_COUNT),
            header::CONTENT_RANGE,
            header::LINK,
            header::ETAG,
        ])
        .max_age(PREFLIGHT_LIFETIME)
}
