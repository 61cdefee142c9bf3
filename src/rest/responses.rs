//! The error responses of the OpenAPI document, grouped by their cause.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, header::Header},
};

/// A parameter is invalid.
pub(super) struct ParameterErrors;

/// The body is invalid.
pub(super) struct BodyErrors;

/// The storage does not accept the file.
pub(super) struct StorageErrors;

/// The upload does not exist, or its state does not allow the call.
pub(super) struct UploadErrors;

/// The call changes something, and a page sent it that may not.
pub(super) struct PageErrors;

/// Errors of every call.
pub(super) struct ServerErrors;

type Responses = BTreeMap<String, RefOr<Response>>;

// === impl ParameterErrors ===

impl IntoResponses for ParameterErrors {
    fn responses() -> Responses {
        let description = "Parameters are missing or invalid. `violations` names them, `parameter` the first one.";
        [error("400", description)].into()
    }
}

// === impl BodyErrors ===

impl IntoResponses for BodyErrors {
    fn responses() -> Responses {
        [
            error("408", "The body did not arrive within 60 seconds."),
            error(
                "413",
                "The body is larger than 2 MiB or has more than 100,000 values, or the file is larger than the gateway accepts.",
            ),
        ]
        .into()
    }
}

// === impl StorageErrors ===

impl IntoResponses for StorageErrors {
    fn responses() -> Responses {
        [
            error("404", "No storage with this id is configured."),
            error("413", "The file is larger than the gateway accepts."),
        ]
        .into()
    }
}

// === impl UploadErrors ===

impl IntoResponses for UploadErrors {
    fn responses() -> Responses {
        [
            error("404", "The upload does not exist, or belongs to another caller."),
            error("409", "Another caller has changed the upload."),
            error(
                "412",
                "The phase or the content of the upload does not allow the call. `reason` has the cause, `missing_parts` the numbers of missing parts.",
            ),
            error(
                "422",
                "The object in the store does not have the file's digest.",
            ),
        ]
        .into()
    }
}

// === impl PageErrors ===

impl IntoResponses for PageErrors {
    fn responses() -> Responses {
        let description = "Without authentication: a page of another origin than those in `rest.cors_origins` sent the request.";
        [error("403", description)].into()
    }
}

// === impl ServerErrors ===

impl IntoResponses for ServerErrors {
    fn responses() -> Responses {
        [
            error(
                "421",
                "Without authentication: `Host` is neither a host of this machine nor in `http_hosts`.",
            ),
            retryable("429", "Too many uploads at once. Retry after `Retry-After`."),
            retryable(
                "503",
                "A store is unavailable, or too many requests run at once. Retry after `Retry-After`.",
            ),
            error(
                "500",
                "A failure of the gateway. `request_id` finds the cause in its log.",
            ),
        ]
        .into()
    }
}

fn error(status: &str, description: &str) -> (String, RefOr<Response>) {
    (status.to_owned(), RefOr::T(response(description)))
}

fn retryable(status: &str, description: &str) -> (String, RefOr<Response>) {
    let mut response = response(description);
    response
        .headers
        .insert("Retry-After".into(), RefOr::T(Header::default()));
    (status.to_owned(), RefOr::T(response))
}

fn response(description: &str) -> Response {
    let schema = Ref::from_schema_name("HttpError");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new()
        .description(description)
        .content("application/json", content)
        .build()
}
