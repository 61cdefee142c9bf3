//! URLs and `Content-Disposition` as text.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All characters but RFC 3986's unreserved ones, as both stores encode them to check a signature.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// As [`RESERVED`], without the slash: the slashes of a key separate path segments.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// A query string under construction.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(String);

/// A key as the path of a URL.
pub(super) fn path(key: &str) -> String {
    utf8_percent_encode(key, RESERVED_IN_PATH).to_string()
}

/// The `Content-Disposition` with which browsers save a response under `file_name`: as it is, and in ASCII for old
/// browsers.
/// <https://www.rfc-editor.org/rfc/rfc6266>
///
/// ```
/// use upload_gateway::blobs::url::attachment;
///
/// assert_eq!(
///     attachment("Füße.txt"),
///     "attachment; filename=\"F__e.txt\"; filename*=UTF-8''F%C3%BC%C3%9Fe.txt"
/// );
/// ```
pub fn attachment(file_name: &str) -> String {
    let plain = |character: char| match character {
        '"' | '\\' | '%' => '_',
        ' '..='~' => character,
        _ => '_',
    };
    let fallback: String = file_name.chars().map(plain).collect();
    let name = utf8_percent_encode(file_name, RESERVED);
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{name}")
}

/// Tags of an object, as both stores take them in a header: pairs of a query, both encoded.
pub(super) fn tags(pairs: &BTreeMap<String, String>) -> Option<String> {
    let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let pairs = pairs.iter();
    let pairs: Vec<_> = pairs
        .map(|(key, value)| format!("{}={}", encoded(key), encoded(value)))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

// === impl Query ===

impl Query {
    /// Adds `name=value` and encodes the value. The name must not need encoding.
    pub(super) fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, RESERVED));
    }

    /// The encoded text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The encoded text.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl From<String> for Query {
    /// Takes text that is encoded already.
    fn from(written: String) -> Self {
        Self(written)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Query {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut query = Self::default();
        for (name, value) in pairs {
            query.push(name, value);
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_sent_in_ascii_and_as_it_is() {
        assert_eq!(
            attachment("Grüße \"100 %\".txt"),
            "attachment; filename=\"Gr__e _100 __.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%22100%20%25%22.txt"
        );
        assert_eq!(
            attachment("a\r\nb\\"),
            "attachment; filename=\"a__b_\"; filename*=UTF-8''a%0D%0Ab%5C"
        );
    }

    #[test]
    fn only_the_slashes_of_a_key_are_not_encoded() {
        assert_eq!(path("a b/c+d?é"), "a%20b/c%2Bd%3F%C3%A9");
        let query: Query = [("a", "b/c d"), ("e", "")].into_iter().collect();
        assert_eq!(query.as_str(), "a=b%2Fc%20d&e=");
    }
}
