//! The OpenAPI document: made from the handlers and their types.

use std::collections::BTreeMap;

use axum::{http::header::CONTENT_TYPE, response::IntoResponse};
use utoipa::{
    IntoResponses, OpenApi,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, header::Header},
};

use super::{BASE, download, records, uploads};
use crate::status::HttpError;

/// What the document says of the whole.
const DESCRIPTION: &str = "\
Signed uploads, straight to the store.

The gateway keeps the record of each upload and signs the requests that the client sends to S3 or Azure Blob itself, in
the way of PlaceOS's resumable uploads. What a client says it sent is a claim; the gateway asks the store.

Parameters come in the query, in a JSON object as the body, or in both: the query wins. The body may have any content
type; keys that nobody knows are ignored.";

/// The document.
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

/// This document
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

/// A parameter is wrong.
pub(super) struct WrongParameter;

/// The body is wrong.
pub(super) struct WrongBody;

/// The storage is wrong.
pub(super) struct WrongStorage;

/// The upload is not there, or its state forbids the call.
pub(super) struct WrongUpload;

/// What can happen to any call.
pub(super) struct Fault;

type Responses = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for WrongParameter {
    fn responses() -> Responses {
        let why = "A parameter is missing or wrong: `parameter` names it.";
        [error("400", why)].into()
    }
}

impl IntoResponses for WrongBody {
    fn responses() -> Responses {
        [
            error("408", "The body did not come in time."),
            error(
                "413",
                "The body is larger than 2 MiB or has more than 100,000 values, or the file is larger than the gateway takes.",
            ),
        ]
        .into()
    }
}

impl IntoResponses for WrongStorage {
    fn responses() -> Responses {
        [
            error("404", "No storage of that name."),
            error("413", "The file is larger than the gateway takes."),
        ]
        .into()
    }
}

impl IntoResponses for WrongUpload {
    fn responses() -> Responses {
        [
            error("404", "No such upload, or not the caller's."),
            error("409", "Somebody else changed the upload in between."),
            error(
                "412",
                "The upload's phase or content forbids it: `reason` says why, `missing_parts` what is missing.",
            ),
            error("422", "The object in the store is not the file that was promised."),
        ]
        .into()
    }
}

impl IntoResponses for Fault {
    fn responses() -> Responses {
        let (code, slow_down) = error("429", "Too much at once: try again later.");
        let (other, away) = error(
            "503",
            "A store is away, or there is too much to do: try again later.",
        );
        [
            (code, retryable(slow_down)),
            (other, retryable(away)),
            error(
                "500",
                "The gateway failed: `request_id` finds the cause in its log.",
            ),
        ]
        .into()
    }
}

fn error(status: &str, why: &str) -> (String, RefOr<Response>) {
    let schema = Ref::from_schema_name("HttpError");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new()
        .description(why)
        .content("application/json", content)
        .build();
    (status.to_owned(), RefOr::T(response))
}

fn retryable(response: RefOr<Response>) -> RefOr<Response> {
    let RefOr::T(mut response) = response else {
        return response;
    };
    response
        .headers
        .insert("Retry-After".into(), RefOr::T(Header::default()));
    RefOr::T(response)
}
