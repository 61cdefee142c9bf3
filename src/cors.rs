//! Which pages of other origins may call a listener from a browser (CORS): the one rule of the HTTP API and of the
//! embedded S3.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use url::Url;

/// An origin of web pages, `https://app.example`, or `*` for all origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOrigin(HeaderValue);

/// How long a browser may cache the response to a preflight request: an hour, less than the limit of every browser.
const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Answers preflight requests, and allows pages of `origins` to send requests with these methods and any headers, and to
/// read the headers `exposed` of the responses.
pub(crate) fn layer(
    origins: &[CorsOrigin],
    methods: impl Into<Vec<Method>>,
    exposed: impl Into<Vec<HeaderName>>,
) -> CorsLayer {
    let allowed = if origins.iter().any(CorsOrigin::is_any) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(|origin| origin.0.clone()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(methods.into())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.into())
        .max_age(PREFLIGHT_LIFETIME)
}

// === impl CorsOrigin ===

impl CorsOrigin {
    const ANY: &'static str = "*";

    /// The origin of the pages at `url`, `None` if they have none (a `file:` URL).
    pub(crate) fn of(url: &str) -> Option<Self> {
        let origin = Url::parse(url).ok()?.origin();
        origin.ascii_serialization().parse().ok()
    }

    /// As browsers send it.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("an origin is ASCII")
    }

    /// Whether it stands for all origins.
    pub(crate) fn is_any(&self) -> bool {
        self.0 == Self::ANY
    }
}

impl FromStr for CorsOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Browsers send the scheme, the host and the port, without a path and without a slash at the end.
        let is_origin = |url: Url| {
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
        };
        let origin = HeaderValue::from_str(text).ok();
        origin
            .filter(|_| text == Self::ANY || Url::parse(text).is_ok_and(is_origin))
            .map(Self)
            .ok_or("expected an origin such as https://app.example, without a path, or *")
    }
}

impl Serialize for CorsOrigin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CorsOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
