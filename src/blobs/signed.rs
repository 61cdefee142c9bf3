//! Sends signed requests as clients do: in plain HTTP, without the SDKs and without credentials.

use std::{path::Path, time::Duration};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use hyper::{Request, StatusCode};
use upload_gateway_core::blobs::sign::SignedRequest;

use super::{
    reach::unreachable,
    transport::{Timeouts, Transport},
};
use crate::unreachable::Unreachable;

/// How long a store may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The answer to a signed request.
#[derive(Debug)]
pub(crate) struct SignedAnswer {
    pub(crate) status: StatusCode,
    /// The error code.
    pub(crate) code: Option<String>,
    pub(crate) body: Bytes,
}

/// Sends `signed` with this body to a store with this `ca_file`.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn send_signed(
    signed: &SignedRequest,
    body: Bytes,
    ca_file: Option<&Path>,
) -> Result<SignedAnswer, Unreachable> {
    let other = |text: String| Unreachable::Other(text);
    let mut request = Request::builder().method(signed.verb).uri(&signed.url);
    for (name, value) in &signed.headers {
        request = request.header(name.as_ref(), value);
    }
    let request = request
        .body(body)
        .map_err(|error| other(error.to_string()))?;
    let transport = Transport::new(ca_file).map_err(|error| other(error.to_string()))?;
    let answer = transport.send(request, Timeouts::silence(TIMEOUT)).await;
    let (head, body) = answer.map_err(|error| unreachable(&error))?.into_parts();
    let body = to_bytes(Body::new(body), MAX_ANSWER).await;
    let body = body.map_err(|error| Unreachable::of(&error))?;
    let of_azure = head
        .headers
        .get("x-ms-error-code")
        .and_then(|code| code.to_str().ok());
    let code = match head.status.is_success() {
        true => None,
        false => of_azure.map(str::to_owned).or_else(|| code_of(&body)),
    };
    Ok(SignedAnswer {
        status: head.status,
        code,
        body,
    })
}

/// The error code in an answer of S3.
fn code_of(body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_owned())
}
