//! Conditional requests for a stored file (RFC 9110, section 13).

use std::time::{Duration, SystemTime};

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
        LAST_MODIFIED,
    },
};
use httpdate::{fmt_http_date, parse_http_date};
use upload_gateway_core::upload::{Object, Timestamp};

/// What identifies the content of a file.
#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// The opaque part of the entity tag, without quotes. The tag is a strong one: an object never changes.
    tag: String,
    /// In whole seconds, as the headers have it.
    modified: SystemTime,
}

// === impl Validators ===

impl Validators {
    /// The validators of `object`, whose upload was created at `created_at`. As on S3, an object is as old as its upload.
    pub(super) fn new(object: &Object, created_at: Timestamp) -> Self {
        let seconds = Duration::from_secs(created_at.0 / 1000);
        Self {
            tag: object.etag.clone(),
            modified: SystemTime::UNIX_EPOCH + seconds,
        }
    }

    /// The headers of a response with the file, and of 304.
    pub(super) fn headers(&self) -> [(HeaderName, String); 2] {
        let modified = fmt_http_date(self.modified);
        [
            (ETAG, format!("\"{}\"", self.tag)),
            (LAST_MODIFIED, modified),
        ]
    }

    /// The status of the response to a GET or HEAD whose conditions do not hold: 304 or 412. `None`: they hold, or there
    /// are none. The order is that of section 13.2.2.
    pub(super) fn refusal(&self, headers: &HeaderMap) -> Option<StatusCode> {
        let is_unchanged = if headers.contains_key(IF_MATCH) {
            self.is_listed(headers, &IF_MATCH, |is_weak| !is_weak)
        } else {
            let since = date(headers, &IF_UNMODIFIED_SINCE);
            since.is_none_or(|since| self.modified <= since)
        };
        if !is_unchanged {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
        let is_known = if headers.contains_key(IF_NONE_MATCH) {
            self.is_listed(headers, &IF_NONE_MATCH, |_| true)
        } else {
            let since = date(headers, &IF_MODIFIED_SINCE);
            since.is_some_and(|since| self.modified <= since)
        };
        is_known.then_some(StatusCode::NOT_MODIFIED)
    }

    /// Whether the ranges of a request are for this content: `If-Range` is not set, or names it (section 13.1.5).
    pub(super) fn are_in_range(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(IF_RANGE) else {
            return true;
        };
        match tags(value).next() {
            Some((is_weak, tag)) => !is_weak && tag == self.tag,
            None => date(headers, &IF_RANGE) == Some(self.modified),
        }
    }

    /// Whether the header lists this content with a tag that may be compared, or is `*`.
    fn is_listed(
        &self,
        headers: &HeaderMap,
        name: &HeaderName,
        is_comparable: impl Fn(bool) -> bool,
    ) -> bool {
        let mut values = headers.get_all(name).iter();
        values.any(|value| {
            let is_any = value.as_bytes().trim_ascii() == b"*";
            is_any || tags(value).any(|(is_weak, tag)| is_comparable(is_weak) && tag == self.tag)
        })
    }
}

/// The entity tags of a list up to the first malformed one: whether each is weak, and its opaque part, which may contain
/// commas (section 8.8.3).
fn tags(value: &HeaderValue) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = value.to_str().unwrap_or_default();
    std::iter::from_fn(move || {
        let next = rest.trim_start_matches([' ', '\t', ',']);
        let (is_weak, quoted) = match next.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, next),
        };
        let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
        rest = after;
        Some((is_weak, tag))
    })
}

/// The date in a header. A header that is set twice or is not a date counts as not set.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none());
    parse_http_date(value?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Mon, 23 Nov 2026 15:59:59 GMT";
    const MODIFIED: &str = "Mon, 23 Nov 2026 16:00:00 GMT";
    const AFTER: &str = "Mon, 23 Nov 2026 16:00:01 GMT";

    fn validators() -> Validators {
        Validators {
            tag: "a,b".into(),
            modified: parse_http_date(MODIFIED).unwrap(),
        }
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(name, HeaderValue::from_static(value));
        }
        all
    }

    fn refusal(pairs: &[(HeaderName, &'static str)]) -> Option<u16> {
        let refused = validators().refusal(&headers(pairs));
        refused.map(|status| status.as_u16())
    }

    #[test]
    fn if_match_compares_strongly_and_if_none_match_weakly() {
        for (list, is_strong, is_weak) in [
            ("\"a,b\"", true, true),
            ("W/\"a,b\"", false, true),
            ("*", true, true),
            (" * ", true, true),
            ("\"x\", W/\"y\",\"a,b\"", true, true),
            ("\"x\" , W/\"a,b\"", false, true),
            ("\"a\", \"b\"", false, false),
            ("a,b", false, false),
            ("\"a,b", false, false),
            ("\"\"", false, false),
            ("", false, false),
        ] {
            let failed = (!is_strong).then_some(412);
            assert_eq!(refusal(&[(IF_MATCH, list)]), failed, "{list}");
            let known = is_weak.then_some(304);
            assert_eq!(refusal(&[(IF_NONE_MATCH, list)]), known, "{list}");
        }
        let lines = [(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a,b\"")];
        assert_eq!(refusal(&lines), Some(304));
    }

    #[test]
    fn dates_are_compared_by_the_second_and_invalid_ones_ignored() {
        for (date, modified, unmodified) in [
            (BEFORE, None, Some(412)),
            (MODIFIED, Some(304), None),
            (AFTER, Some(304), None),
            ("Monday, 23-Nov-26 16:00:00 GMT", Some(304), None),
            ("2026-11-23T15:00:00Z", None, None),
            ("", None, None),
        ] {
            assert_eq!(refusal(&[(IF_MODIFIED_SINCE, date)]), modified, "{date}");
            assert_eq!(
                refusal(&[(IF_UNMODIFIED_SINCE, date)]),
                unmodified,
                "{date}"
            );
        }
        let twice = [(IF_MODIFIED_SINCE, AFTER), (IF_MODIFIED_SINCE, AFTER)];
        assert_eq!(refusal(&twice), None);
        assert_eq!(refusal(&[]), None);
    }

    #[test]
    fn tags_have_priority_over_dates_and_412_over_304() {
        let (same, other) = ("\"a,b\"", "\"x\"");
        for (pairs, expected) in [
            ([(IF_MATCH, same), (IF_UNMODIFIED_SINCE, BEFORE)], None),
            ([(IF_MATCH, other), (IF_UNMODIFIED_SINCE, AFTER)], Some(412)),
            ([(IF_NONE_MATCH, other), (IF_MODIFIED_SINCE, AFTER)], None),
            (
                [(IF_NONE_MATCH, same), (IF_MODIFIED_SINCE, BEFORE)],
                Some(304),
            ),
            ([(IF_MATCH, other), (IF_NONE_MATCH, same)], Some(412)),
            ([(IF_MATCH, same), (IF_NONE_MATCH, same)], Some(304)),
            (
                [(IF_UNMODIFIED_SINCE, BEFORE), (IF_NONE_MATCH, same)],
                Some(412),
            ),
        ] {
            assert_eq!(refusal(&pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn ranges_are_for_the_same_content_only() {
        for (value, expected) in [
            ("\"a,b\"", true),
            ("W/\"a,b\"", false),
            ("\"x\"", false),
            (MODIFIED, true),
            (BEFORE, false),
            (AFTER, false),
            ("a,b", false),
        ] {
            let headers = headers(&[(IF_RANGE, value)]);
            assert_eq!(validators().are_in_range(&headers), expected, "{value}");
        }
        assert!(validators().are_in_range(&HeaderMap::new()));
    }
}
