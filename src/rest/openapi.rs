//! The OpenAPI document, generated from the handlers and their types.

use axum::{http::header::CONTENT_TYPE, response::IntoResponse};
use utoipa::OpenApi;

use super::{api::BASE, download, records, uploads};
use crate::status::HttpError;

/// The description of the API.
const DESCRIPTION: &str = "\
Uploads straight to the store, with signed requests.

The gateway keeps a record of each upload, and signs the requests that the client sends to S3 or Azure Blob. The API is
that of PlaceOS's resumable uploads. A report of sent parts is not proof: the gateway checks them with the store.

Parameters are in the query, in the body as a JSON object, or in both; then the query has priority. The body may have any
content type. Unknown keys are ignored.";

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Upload gateway", description = DESCRIPTION),
    paths(
        uploads::residence,
        uploads::create,
        uploads::update,
        uploads::edit,
        uploads::complete,
        uploads::remove,
        records::list,
        download::url,
        download::download,
        serve
    ),
    components(schemas(HttpError))
)]
struct Document;

/// Read this document
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/openapi.json",
    tag = "uploads",
    operation_id = "openapi",
    responses((status = 200, description = "The OpenAPI document.", body = serde_json::Value))
)]
pub(super) async fn serve() -> impl IntoResponse {
    let document = Document::openapi().to_json();
    let document = document.expect("maps with text as keys have a JSON form");
    ([(CONTENT_TYPE, "application/json")], document)
}
