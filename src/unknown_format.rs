//! The refusal of stored data whose format this build does not read.

use upload_gateway_core::error::Error;

/// Stored data that has another format version than this build reads, or none.
///
/// The message is for operators: it names the data, the version found, the version this build reads, and what to do.
/// Refused data stays as it is.
#[derive(Debug, thiserror::Error)]
#[error(
    "{stored} has {found}, but this build reads only format {known}; it was not changed: run a release that reads it, \
     or remove it if it is no longer needed"
)]
pub(crate) struct UnknownFormat {
    stored: String,
    found: String,
    known: &'static str,
}

// === impl UnknownFormat ===

impl UnknownFormat {
    /// `stored` names the data and where it is kept, `found` is its version, `known` the one that this build reads.
    pub(crate) fn new(stored: impl Into<String>, found: Option<&str>, known: &'static str) -> Self {
        Self {
            stored: stored.into(),
            found: match found {
                Some(version) => format!("format {version}"),
                None => "no format version".to_owned(),
            },
            known,
        }
    }
}

impl From<UnknownFormat> for Error {
    fn from(unknown: UnknownFormat) -> Self {
        Self::fault(unknown.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_version_found_and_the_version_read() {
        assert_eq!(
            UnknownFormat::new("the record a", Some("2"), "1").to_string(),
            "the record a has format 2, but this build reads only format 1; it was not changed: run a release that \
             reads it, or remove it if it is no longer needed"
        );
        let unversioned = UnknownFormat::new("the record a", None, "1").to_string();
        assert!(
            unversioned.starts_with("the record a has no format version, but"),
            "{unversioned}"
        );
    }
}
