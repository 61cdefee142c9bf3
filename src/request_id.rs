//! The id of a call, which is in its response, in its errors and in every line that it logs.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use upload_gateway_core::call;

/// The header, on gRPC the metadata, of requests and responses.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a caller that is used, in bytes.
const MAX_LENGTH: usize = 128;

/// The id of a call: visible ASCII characters, 1 to 128.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(String);

// === impl RequestId ===

impl RequestId {
    /// The id of a request with these headers: the caller's if it sent exactly one that can be used, otherwise a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(HEADER).iter();
        match (sent.next().and_then(Self::read), sent.next()) {
            (Some(id), None) => id,
            _ => Self::random(),
        }
    }

    /// The id of the running call, or a new one outside of a call.
    pub(crate) fn current() -> Self {
        call::current::<Self>().map_or_else(Self::random, |id| Self::clone(&id))
    }

    fn read(value: &HeaderValue) -> Option<Self> {
        let is_visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
        let text = value.to_str().ok()?;
        (is_visible && (1..=MAX_LENGTH).contains(&text.len())).then(|| Self(text.to_owned()))
    }

    fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()))
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The value of the header.
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("visible ASCII is valid in a header")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(values: &[&str]) -> RequestId {
        let values = values.iter().map(|value| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            (HEADER, value)
        });
        RequestId::of(&values.collect())
    }

    #[test]
    fn the_id_of_the_caller_is_used_if_it_is_sane() {
        let longest = "x".repeat(128);
        for sane in ["a", "4bf92f3577b34da6", "!\"}~", &longest] {
            assert_eq!(sent(&[sane]).as_str(), sane);
        }
        let too_long = "x".repeat(129);
        for values in [
            &[][..],
            &[""],
            &["a b"],
            &["a\tb"],
            &["später"],
            &[&too_long],
            &["a", "b"],
        ] {
            let id = sent(values);
            assert_eq!(id.as_str().len(), 16, "{values:?}");
            assert!(id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
