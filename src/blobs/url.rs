//! The text of URLs and of `Content-Disposition`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but RFC 3986's unreserved characters, as both stores compute it.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// As [`RESERVED`]; the slashes of a key separate the parts of a path.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// A query, or what of it was written so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(String);

/// The path that a key is in a URL.
pub(super) fn path(key: &str) -> String {
    utf8_percent_encode(key, RESERVED_IN_PATH).to_string()
}

/// Makes a browser save an answer under that name: for the old ones in ASCII, for the others as it is.
/// <https://www.rfc-editor.org/rfc/rfc6266>
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

// === impl Query ===

impl Query {
    /// Adds `name=value`; the name is one that needs no encoding.
    pub(super) fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, RESERVED));
    }

    /// As it stands in a URL.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As it stands in a URL.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl From<String> for Query {
    /// What is written already.
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
    fn a_file_name_is_given_in_ascii_and_as_it_is() {
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
    fn only_a_keys_slashes_stand_for_themselves() {
        assert_eq!(path("a b/c+d?é"), "a%20b/c%2Bd%3F%C3%A9");
        let query: Query = [("a", "b/c d"), ("e", "")].into_iter().collect();
        assert_eq!(query.as_str(), "a=b%2Fc%20d&e=");
    }
}
