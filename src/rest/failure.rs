//! Error responses.

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use upload_gateway_core::error::Error;

use crate::status::{HttpError, http_answer};

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A parameter is invalid, or the use case failed.
    Error(Error),
    /// The request reached no use case. The response has no reason.
    Refused(StatusCode, &'static str),
}

// === impl Failure ===

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Error(error) => error,
            Self::Refused(status, message) => {
                let body = HttpError {
                    message: message.to_owned(),
                    ..HttpError::default()
                };
                return (status, Json(body)).into_response();
            }
        };
        let answer = http_answer(&error);
        let status = StatusCode::from_u16(answer.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = match answer.body {
            Some(body) => (status, Json(body)).into_response(),
            None => status.into_response(),
        };
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(delay) = answer.retry_after {
            // Whole seconds, rounded up.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
