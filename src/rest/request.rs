//! Reads the parameters of a request, from the query and a JSON body.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{Method, StatusCode, request::Parts},
};
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use tokio::time::timeout;
use upload_gateway_core::{
    error::{All, Error, Result},
    upload::UploadId,
};

use super::failure::Failure;

/// The largest body in bytes: twice the size of a report of 10,000 parts with their MD5s.
pub(super) const BODY_LIMIT: usize = 2 * 1024 * 1024;

/// The bytes that are read of a body that is too large. A client whose connection ends while it sends would not read the
/// response.
const DISCARD_LIMIT: usize = 8 * BODY_LIMIT;

/// The maximum number of values in a body: a report of 25,000 parts in both `part_list` and `part_data`. A parsed value
/// needs many times the memory of its text.
const MAX_VALUES: usize = 100_000;

/// The time in which a body must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The parameters of a request: those of the query, and those of a JSON body of any content type. The query has priority.
/// A null counts as not set, an empty body as an empty object. Parameters that `T` does not have are ignored.
pub(super) struct Parameters<T: Parse>(pub(super) T::Value);

/// The parameters of a call as they are sent. All are optional here, so that each one can be invalid alone.
pub(super) trait Parse: DeserializeOwned {
    /// The parameters as values of the domain.
    type Value;

    /// The values.
    ///
    /// # Errors
    /// `InvalidArgument` with the names of all invalid parameters.
    fn parse(self) -> Result<Self::Value>;
}

/// The upload id in the path.
#[derive(Debug)]
pub(super) struct Id(pub(super) UploadId);

// === impl Parameters ===

impl<S: Send + Sync, T: Parse> FromRequest<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        // The body of a GET has no meaning (RFC 9110, 9.3.1).
        let mut all = match parts.method {
            Method::GET | Method::HEAD => Map::new(),
            _ => parsed(&read(body).await?)?,
        };
        all.extend(query(parts.uri.query().unwrap_or_default())?);
        Ok(Self(values::<T>(all)?))
    }
}

// === impl Id ===

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let text = text.map(|Path(text)| text).unwrap_or_default();
        // The same error as for an unknown id, so that callers learn nothing about ids.
        let unknown = || Error::upload_not_found(text.chars().take(80).collect::<String>());
        Ok(Self(text.parse().map_err(|_| unknown())?))
    }
}

async fn read(body: Body) -> Result<Vec<u8>, Failure> {
    match timeout(BODY_TIMEOUT, collect(body)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(Failure::Refused(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive within 60 seconds",
        )),
    }
}

async fn collect(body: Body) -> Result<Vec<u8>, Failure> {
    let (mut stream, mut bytes, mut received) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| match error.into_inner().downcast::<Error>() {
            Ok(error) => Failure::from(*error),
            Err(_) => Failure::Refused(StatusCode::BAD_REQUEST, "the body is incomplete"),
        })?;
        received += chunk.len();
        if received > DISCARD_LIMIT {
            break;
        }
        if received <= BODY_LIMIT {
            bytes.extend_from_slice(&chunk);
        }
    }
    if received > BODY_LIMIT {
        return Err(Failure::Refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 2 MiB",
        ));
    }
    Ok(bytes)
}

fn parsed(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    // An upper bound: one of these bytes precedes every value. Those inside of text count, too.
    let precedes_value = |byte: &&u8| matches!(byte, b',' | b'{' | b'[');
    if body.iter().filter(precedes_value).count() > MAX_VALUES {
        return Err(Failure::Refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body has more than 100,000 values",
        ));
    }
    Ok(json(body)?)
}

pub(super) fn json(body: &[u8]) -> Result<Map<String, Value>> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let value = serde_json::from_slice(body)
        .map_err(|error| Error::invalid("body", format!("invalid JSON: {error}")))?;
    match value {
        Value::Object(mut all) => {
            all.retain(|_, value| !value.is_null());
            Ok(all)
        }
        Value::Null => Ok(Map::new()),
        _ => Err(Error::invalid("body", "must be a JSON object")),
    }
}

/// If a parameter is set twice, the last value counts.
pub(super) fn query(text: &str) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name =
            decode(name).ok_or_else(|| Error::invalid("query", "a name is not valid UTF-8"))?;
        let Some(value) = decode(value) else {
            return Err(Error::invalid(name, "not valid UTF-8"));
        };
        all.insert(name, Value::String(value));
    }
    Ok(all)
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// The values of all parameters.
///
/// # Errors
/// One error with the names of all invalid parameters.
pub(super) fn values<T: Parse>(all: Map<String, Value>) -> Result<T::Value> {
    let (mut all, mut failed) = (Value::Object(all), None::<Error>);
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&all) {
            Ok(valid) => {
                let ((), values) = (failed.map_or(Ok(()), Err), valid.parse()).all()?;
                return Ok(values);
            }
            Err(error) => error,
        };
        let invalid = Error::invalid(error.path().to_string(), error.inner().to_string());
        // Without this parameter, the next invalid one is found.
        let name = match error.path().iter().next() {
            Some(Segment::Map { key }) => key,
            _ => return Err(invalid),
        };
        if all
            .as_object_mut()
            .and_then(|all| all.remove(name))
            .is_none()
        {
            return Err(invalid);
        }
        failed = Some(match failed {
            Some(failed) => failed.and(invalid),
            None => invalid,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_invalid_utf8_is_refused_by_name() {
        let all = query("a=1&b=x%2By+z&c&&d==").unwrap();
        assert_eq!(
            Value::Object(all),
            serde_json::json!({"a": "1", "b": "x+y z", "c": "", "d": "="})
        );
        let error = query("file_name=%ff").unwrap_err();
        assert_eq!(error.violations()[0].field, "file_name");
        assert_eq!(query("%ff=1").unwrap_err().violations()[0].field, "query");
    }

    #[test]
    fn a_body_is_an_object_or_empty() {
        assert!(json(b"").unwrap().is_empty());
        assert!(json(b" \n").unwrap().is_empty());
        assert!(json(b"{\"a\": null}").unwrap().is_empty());
        assert!(json(b"null").unwrap().is_empty());
        for body in [&b"[1]"[..], b"\"a\"", b"{", b"\xff"] {
            let error = json(body).unwrap_err();
            assert_eq!(error.violations()[0].field, "body");
        }
    }

    #[test]
    fn a_body_with_too_many_values_is_not_parsed() {
        let list = |count: usize| format!("{{\"a\":[{}0]}}", "0,".repeat(count));
        let most = MAX_VALUES - 2;
        assert_eq!(parsed(list(most).as_bytes()).unwrap().len(), 1);
        let refused = parsed(list(most + 1).as_bytes()).unwrap_err();
        assert!(matches!(
            refused,
            Failure::Refused(StatusCode::PAYLOAD_TOO_LARGE, _)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_in_time_is_refused() {
        let chunks = futures::stream::pending::<Result<Vec<u8>>>();
        let refused = read(Body::from_stream(chunks)).await.unwrap_err();
        assert!(matches!(
            refused,
            Failure::Refused(StatusCode::REQUEST_TIMEOUT, _)
        ));
    }
}
