//! The configuration of the HTTP API: the table `[rest]`.

use std::str::FromStr;

use axum::http::HeaderValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use crate::values;

/// How the HTTP API answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The form of `part_data` in answers.
    pub part_data: PartDataForm,
    /// The origins whose pages may call the API from a browser. Empty: only the API's own.
    #[serde(deserialize_with = "values::list")]
    pub cors_origins: Vec<CorsOrigin>,
}

/// The form of `part_data` in answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartDataForm {
    /// An array of parts.
    #[default]
    Array,
    /// An object of parts by part number, which older PlaceOS clients need.
    Map,
}

/// An origin of web pages, `https://app.example`, or `*` for all origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOrigin(HeaderValue);

// === impl CorsOrigin ===

impl CorsOrigin {
    const ANY: &'static str = "*";

    /// As browsers send it.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("an origin is ASCII")
    }

    /// The value of the header `Origin`.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.0
    }

    /// Whether it stands for all origins.
    pub(super) fn is_any(&self) -> bool {
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
