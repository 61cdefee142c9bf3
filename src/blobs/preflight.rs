//! Asks a store whether pages of an origin may send a request (CORS), as browsers do before they send it.
//! <https://fetch.spec.whatwg.org/#cors-preflight-fetch>

use std::{error::Error, path::Path, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN,
    },
};
use upload_gateway_core::blobs::sign::SignedRequest;

use super::transport::{Timeouts, Transport};

/// How long a store may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a browser would not send the request.
#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    /// The store did not answer.
    #[error("the store did not answer the preflight request")]
    NoAnswer(#[source] Box<dyn Error + Send + Sync>),
    /// It answered with an error, as it does without a rule for the origin.
    #[error("the store answered {0} to the preflight request")]
    Refused(StatusCode),
    /// The answer does not allow the origin.
    #[error("the store does not allow the origin")]
    Origin,
    /// The answer does not allow the method.
    #[error("the store does not allow the method {0}")]
    Method(&'static str),
    /// The answer does not allow a header of the request.
    #[error("the store does not allow the header {0}")]
    Header(String),
}

/// Sends the preflight request of a page of `origin` that wants to send `signed` to a store with this `ca_file`.
///
/// # Errors
/// What the store does not allow.
pub async fn preflight(
    signed: &SignedRequest,
    origin: &str,
    ca_file: Option<&Path>,
) -> Result<(), NotAllowed> {
    let names: Vec<_> = signed
        .headers
        .keys()
        .map(|name| name.to_lowercase())
        .collect();
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(&signed.url)
        .header(ORIGIN, origin)
        .header(ACCESS_CONTROL_REQUEST_METHOD, signed.verb)
        .header(ACCESS_CONTROL_REQUEST_HEADERS, names.join(","))
        .body(Bytes::new())
        .map_err(|error| NotAllowed::NoAnswer(error.into()))?;
    let transport = Transport::new(ca_file).map_err(|error| NotAllowed::NoAnswer(error.into()))?;
    let answer = transport.send(request, Timeouts::silence(TIMEOUT)).await;
    let answer = answer.map_err(|error| NotAllowed::NoAnswer(error.into()))?;
    if !answer.status().is_success() {
        return Err(NotAllowed::Refused(answer.status()));
    }
    compare(answer.headers(), origin, signed.verb, &names)
}

/// What the headers of the answer do not allow.
fn compare(
    headers: &HeaderMap,
    origin: &str,
    verb: &'static str,
    names: &[String],
) -> Result<(), NotAllowed> {
    if !allows(headers, ACCESS_CONTROL_ALLOW_ORIGIN, origin) {
        return Err(NotAllowed::Origin);
    }
    // Browsers need no permission for a POST.
    if verb != "POST" && !allows(headers, ACCESS_CONTROL_ALLOW_METHODS, verb) {
        return Err(NotAllowed::Method(verb));
    }
    let refused = |name: &&String| !allows(headers, ACCESS_CONTROL_ALLOW_HEADERS, name);
    match names.iter().find(refused) {
        Some(name) => Err(NotAllowed::Header(name.clone())),
        None => Ok(()),
    }
}

/// Whether a header of the answer lists the value or all values.
fn allows(headers: &HeaderMap, name: HeaderName, value: &str) -> bool {
    let lists = headers.get_all(name).into_iter();
    let mut allowed = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(',').map(str::trim));
    allowed.any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://app.example";

    /// What an answer with these headers does not allow a PUT with two headers.
    fn compared(
        origin: &'static str,
        methods: &'static str,
        names: &'static str,
    ) -> Option<String> {
        let headers = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, names),
        ];
        let headers = headers.map(|(name, value)| (name, value.parse().unwrap()));
        let sent = ["content-md5", "content-type"].map(str::to_owned);
        let compared = compare(&headers.into_iter().collect(), PAGE, "PUT", &sent);
        compared.err().map(|refused| refused.to_string())
    }

    #[test]
    fn lists_and_stars_allow_a_request() {
        let names = "Content-MD5, Content-Type";
        for (origin, methods, names) in [(PAGE, "GET,PUT", names), ("*", "*", "*")] {
            assert_eq!(compared(origin, methods, names), None);
        }
    }

    #[test]
    fn the_first_thing_that_is_not_allowed_is_named() {
        let refused = |origin, methods, names| compared(origin, methods, names).unwrap();
        assert_eq!(
            refused("https://b.example", "PUT", "*"),
            "the store does not allow the origin"
        );
        assert_eq!(
            refused(PAGE, "GET, POST", "*"),
            "the store does not allow the method PUT"
        );
        assert_eq!(
            refused(PAGE, "PUT", "content-md5"),
            "the store does not allow the header content-type"
        );
    }

    #[test]
    fn a_post_needs_no_permission_for_its_method() {
        let headers = [(ACCESS_CONTROL_ALLOW_ORIGIN, "*".parse().unwrap())];
        let compared = compare(&headers.into_iter().collect(), PAGE, "POST", &[]);
        assert!(compared.is_ok());
    }
}
