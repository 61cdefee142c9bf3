//! The HTTP edge: parses a request, calls the gateway, converts the result.
//!
//! Paths, methods, parameters and JSON below [`BASE`] are those of PlaceOS's resumable uploads. Parameters are in the query,
//! in a JSON body, or in both; then the query has priority. The OpenAPI document describes every call. It is generated from
//! the handlers and their types.

mod admission;
mod api;
mod browsers;
mod conditions;
mod demo;
mod download;
mod failure;
mod faults;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../fuzz/checks/rest.rs"]
pub mod fuzzing;
mod health;
mod host;
mod openapi;
mod parameters;
mod placement;
mod records;
mod request;
mod responses;
mod settings;
mod shapes;
mod uploads;
mod values;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, Method, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use tokio::sync::watch;
use tower_http::cors::CorsLayer;
use upload_gateway_core::{error::Error, gateway::Gateway};

use self::{api::Api, failure::Failure};
pub use self::{
    api::BASE,
    browsers::without_foreign_pages,
    demo::{DEMO, with_demo},
    faults::with_faults,
    health::{Health, Readiness, StoreHealth, StoreStatus},
    host::with_one_host,
    settings::{PartDataForm, Settings},
};
use crate::{
    cors::{self, CorsOrigin},
    request_id,
};

/// The response to a request that is not handled.
pub(crate) fn refuse(error: Error) -> Response {
    Failure::from(error).into_response()
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
    Router::new()
        .route(&at(""), collection.clone())
        .route(&at("/"), collection)
        .route(&at("/new"), get(uploads::residence))
        .route(&at("/openapi.json"), get(openapi::serve))
        .route(&at("/{id}"), one)
        .route(&at("/{id}/edit"), get(uploads::edit))
        .route(&at("/{id}/url"), get(download::url))
        .route(&at("/{id}/download"), get(download::download))
        .route_layer(from_fn_with_state(admission::room(), admission::admit))
        .with_state(api)
        .merge(probes(health))
        .fallback(|| async { Failure::Refused(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Failure::Refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "the path does not have this method",
            )
        })
}

/// The probes, for a listener of their own.
pub fn probes(health: watch::Receiver<Health>) -> Router {
    Router::new()
        .route(health::ALIVE, get(health::alive).with_state(health.clone()))
        .route(health::READY, get(health::ready).with_state(health))
}

/// Lets pages of the configured origins call `router`, and read all of its responses: also those to calls that are refused
/// before they reach a handler.
pub fn with_pages(router: Router, settings: &Settings) -> Router {
    match settings.cors_origins.as_slice() {
        [] => router,
        origins => router.layer(cors(origins)),
    }
}

fn cors(origins: &[CorsOrigin]) -> CorsLayer {
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PATCH,
        Method::PUT,
        Method::DELETE,
    ];
    let exposed = [
        HeaderName::from_static(records::TOTAL_COUNT),
        request_id::HEADER,
        header::ACCEPT_RANGES,
        header::CONTENT_DISPOSITION,
        header::CONTENT_RANGE,
        header::ETAG,
        header::LAST_MODIFIED,
        header::LINK,
        header::RETRY_AFTER,
    ];
    cors::layer(origins, methods, exposed)
}
