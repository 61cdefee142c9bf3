//! The credential that a request carries. It is found here, and checked elsewhere.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, Method, header, request::Parts};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::rejection::Rejection;

/// The header of API keys, on gRPC the metadata.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The names of a cookie or a query parameter, as PlaceOS has them.
const API_KEY_PARAMETER: &str = "api-key";
const TOKEN_PARAMETER: &str = "bearer_token";

/// The header with which browsers say where a request comes from.
const FETCH_SITE: &str = "sec-fetch-site";

/// The longest credential in bytes. A longer one is not parsed.
const MAX_LENGTH: usize = 8 * 1024;

/// A token or an API key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// A JSON Web Token.
    Token(String),
    /// An API key.
    ApiKey(String),
}

/// Where HTTP requests may carry a credential, besides headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialSource {
    /// The cookies `bearer_token` and `api-key`.
    Cookie,
    /// The query parameters of these names.
    Query,
}

/// What a request presents.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Presented {
    pub(super) credential: Option<Credential>,
    /// Whether a URL or a browser carries it, so that its response needs care.
    pub(super) is_ambient: bool,
}

// === impl Presented ===

impl Presented {
    /// What a request with these headers presents. The query and cookies count for GET and HEAD, as far as `sources` allow it.
    ///
    /// # Errors
    /// There is more than one credential, or one that is too long or malformed.
    pub(super) fn of(request: &Parts, sources: &[CredentialSource]) -> Result<Self, Rejection> {
        let mut found = from_headers(&request.headers)?;
        let in_headers = found.len();
        if matches!(request.method, Method::GET | Method::HEAD) {
            if sources.contains(&CredentialSource::Query) {
                found.extend(from_query(request.uri.query().unwrap_or_default())?);
            }
            if sources.contains(&CredentialSource::Cookie) && is_from_this_site(&request.headers) {
                found.extend(from_cookies(&request.headers)?);
            }
        }
        let is_ambient = found.len() > in_headers;
        let mut found = found.into_iter();
        let credential = found.next();
        if found.any(|other| Some(&other) != credential.as_ref()) {
            return Err(Rejection::invalid("the request has several credentials"));
        }
        Ok(Self {
            credential,
            is_ambient,
        })
    }
}

fn from_headers(headers: &HeaderMap) -> Result<Vec<Credential>, Rejection> {
    let mut found = Vec::new();
    for value in headers.get_all(header::AUTHORIZATION) {
        let text = text(value.as_bytes())?;
        let token = text
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or_else(|| Rejection::invalid("the scheme is not Bearer"))?;
        found.push(Credential::Token(token.trim().to_owned()));
    }
    for value in headers.get_all(API_KEY) {
        found.push(Credential::ApiKey(
            text(value.as_bytes())?.trim().to_owned(),
        ));
    }
    Ok(found)
}

fn from_query(query: &str) -> Result<Vec<Credential>, Rejection> {
    let mut found = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode_str(name).decode_utf8_lossy();
        if matches!(&*name, API_KEY_PARAMETER | TOKEN_PARAMETER) {
            let value: Vec<u8> = percent_decode_str(text(value.as_bytes())?).collect();
            found.extend(named(&name, text(&value)?));
        }
    }
    Ok(found)
}

fn from_cookies(headers: &HeaderMap) -> Result<Vec<Credential>, Rejection> {
    let mut found = Vec::new();
    for value in headers.get_all(header::COOKIE) {
        // Other cookies may contain anything.
        for pair in value.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = pair.split_at(at.unwrap_or(pair.len()));
            let name = std::str::from_utf8(name).unwrap_or_default();
            if matches!(name, API_KEY_PARAMETER | TOKEN_PARAMETER) {
                found.extend(named(name, text(value.get(1..).unwrap_or_default())?));
            }
        }
    }
    Ok(found)
}

fn named(name: &str, value: &str) -> Option<Credential> {
    let value = value.trim_matches('"').to_owned();
    match name {
        _ if value.is_empty() => None,
        API_KEY_PARAMETER => Some(Credential::ApiKey(value)),
        TOKEN_PARAMETER => Some(Credential::Token(value)),
        _ => None,
    }
}

/// A page of another site must not make a browser use its cookies. Clients that are no browsers do not send the header.
fn is_from_this_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(FETCH_SITE).iter();
    sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"same-site" | b"none"))
}

/// The text of a credential that is not too long.
fn text(bytes: &[u8]) -> Result<&str, Rejection> {
    if bytes.len() > MAX_LENGTH {
        return Err(Rejection::invalid("the credential is longer than 8 KiB"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Ok(text),
        _ => Err(Rejection::invalid(
            "the credential has other characters than visible ASCII",
        )),
    }
}

// === impl Credential ===

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Token(_) => "Token",
            Self::ApiKey(_) => "ApiKey",
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const ALL: [CredentialSource; 2] = [CredentialSource::Cookie, CredentialSource::Query];

    fn presented(
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Result<Presented, Rejection> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Presented::of(&request.body(()).unwrap().into_parts().0, &ALL)
    }

    fn token(text: &str) -> Option<Credential> {
        Some(Credential::Token(text.into()))
    }

    fn api_key(text: &str) -> Option<Credential> {
        Some(Credential::ApiKey(text.into()))
    }

    #[test]
    fn headers_carry_a_token_or_an_api_key() {
        for (headers, expected) in [
            (&[][..], None),
            (&[("authorization", "Bearer abc")], token("abc")),
            (&[("authorization", "bearer  abc ")], token("abc")),
            (&[("x-api-key", "id.secret")], api_key("id.secret")),
            (&[("x-api-key", "k"), ("x-api-key", "k")], api_key("k")),
        ] {
            let found = presented(Method::POST, "/", headers).unwrap();
            assert_eq!((found.credential, found.is_ambient), (expected, false));
        }
    }

    #[test]
    fn several_or_malformed_credentials_are_refused() {
        let long = format!("Bearer {}", "x".repeat(MAX_LENGTH));
        for headers in [
            &[("authorization", "Bearer a"), ("x-api-key", "k")][..],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("x-api-key", "k"), ("x-api-key", "l")],
            &[("authorization", "Basic YTpi")],
            &[("authorization", "abc")],
            &[("authorization", "Bearer \u{e4}")],
            &[("authorization", &long)],
            &[("x-api-key", &long)],
            &[("cookie", "bearer_token=a; api-key=b")],
            &[("authorization", "Bearer a"), ("cookie", "bearer_token=b")],
        ] {
            let refused = presented(Method::GET, "/", headers).unwrap_err();
            assert!(matches!(refused, Rejection::Invalid(_)), "{headers:?}");
        }
        assert!(presented(Method::GET, "/?api-key=a&api-key=b", &[]).is_err());
        assert!(presented(Method::GET, "/?api-key=a&bearer_token=b", &[]).is_err());
    }

    #[test]
    fn queries_and_cookies_count_for_reads_only() {
        let cookie = [("cookie", "other=\u{e4}; bearer_token=abc")];
        let found = presented(Method::GET, "/?api-key=i%2Ed", &[]).unwrap();
        assert_eq!((found.credential, found.is_ambient), (api_key("i.d"), true));
        let found = presented(Method::HEAD, "/", &cookie).unwrap();
        assert_eq!((found.credential, found.is_ambient), (token("abc"), true));
        for method in [Method::POST, Method::DELETE] {
            let found = presented(method, "/?api-key=a", &cookie).unwrap();
            assert_eq!(found.credential, None);
        }
        let request = Request::builder()
            .uri("/?api-key=a")
            .header("cookie", "api-key=a");
        let parts = request.body(()).unwrap().into_parts().0;
        assert_eq!(Presented::of(&parts, &[]).unwrap().credential, None);
    }

    #[test]
    fn cookies_do_not_count_for_pages_of_other_sites() {
        for (site, counts) in [
            ("same-origin", true),
            ("same-site", true),
            ("none", true),
            ("cross-site", false),
            ("", false),
        ] {
            let headers = [("cookie", "api-key=k"), ("sec-fetch-site", site)];
            let found = presented(Method::GET, "/", &headers).unwrap();
            assert_eq!(found.credential.is_some(), counts, "{site}");
        }
    }
}
