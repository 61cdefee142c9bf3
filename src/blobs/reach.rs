//! Whether a server answers at the address of a store, and the time of its clock.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper::{Request, StatusCode, header::DATE};
use upload_gateway_core::escape::escaped;

use super::transport::{SendError, Timeouts, Transport};
use crate::unreachable::Unreachable;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server that answered.
#[derive(Debug)]
struct Reached {
    status: StatusCode,
    /// The time of its clock, to the second.
    date: Option<SystemTime>,
}

/// Sends a request without a signature to `url`, which a store refuses, and returns the time of the store's clock if its answer has
/// it.
///
/// # Errors
/// Why no server answers, and whether it would with the other scheme.
pub(crate) async fn reach(
    url: &str,
    ca_file: Option<&Path>,
) -> Result<Option<SystemTime>, Unreachable> {
    let answer = ask(url, ca_file).await;
    match (&answer, other_scheme(url)) {
        // Some servers answer plain HTTP at a port for TLS, with this status.
        (
            Ok(Reached {
                status: StatusCode::BAD_REQUEST,
                ..
            })
            | Err(Unreachable::Other(_)),
            Some(other),
        ) if other.starts_with("https:") => {
            let speaks_tls = match ask(&other, ca_file).await {
                Ok(_) => true,
                Err(error) => error.is_of_certificate(),
            };
            if speaks_tls {
                return Err(Unreachable::NeedsTls);
            }
        }
        (Err(Unreachable::NeedsPlain | Unreachable::Other(_)), Some(other))
            if other.starts_with("http:") && ask(&other, ca_file).await.is_ok() =>
        {
            return Err(Unreachable::NeedsPlain);
        }
        _ => {}
    }
    answer.map(|reached| reached.date)
}

/// The same URL with `http` instead of `https`, or the other way round. `None` if it has neither.
fn other_scheme(url: &str) -> Option<String> {
    match url.split_once("://")? {
        ("http", rest) => Some(format!("https://{rest}")),
        ("https", rest) => Some(format!("http://{rest}")),
        _ => None,
    }
}

async fn ask(url: &str, ca_file: Option<&Path>) -> Result<Reached, Unreachable> {
    let request = Request::get(url).body(Bytes::new());
    let request = request.map_err(|error| Unreachable::Other(error.to_string()))?;
    let transport =
        Transport::new(ca_file).map_err(|error| Unreachable::Other(error.to_string()))?;
    let answer = transport.send(request, Timeouts::silence(TIMEOUT)).await;
    let answer = answer.map_err(|error| unreachable(&error))?;
    let date = answer
        .headers()
        .get(DATE)
        .and_then(|date| date.to_str().ok());
    Ok(Reached {
        status: answer.status(),
        date: date.and_then(|date| httpdate::parse_http_date(date).ok()),
    })
}

/// Why a request has no answer.
pub(super) fn unreachable(error: &SendError) -> Unreachable {
    if error.is_timeout() {
        return Unreachable::Silent;
    }
    match Unreachable::of(error) {
        Unreachable::Other(text) => Unreachable::Other(escaped(&text).into_owned()),
        known => known,
    }
}
