//! Configuration errors, in words for the operator.

use std::fmt::{self, Display};

use serde::de;

use crate::values::InvalidKey;

/// A key that is unknown or has an invalid value. The message never contains the value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The path of the key, `limits.memory_budget`. Empty if the error concerns a whole file.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// The file, variable or flag that the key comes from, if it is known.
    pub origin: Option<String>,
}

// === impl ConfigError ===

impl ConfigError {
    /// `key` has the problem `problem`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
            origin: None,
        }
    }

    /// The same error, seen from the table that contains its table as `parent`.
    pub(super) fn within(self, parent: &str) -> Self {
        let key = match self.key.as_str() {
            "" => parent.to_owned(),
            key => format!("{parent}.{key}"),
        };
        Self { key, ..self }
    }

    /// `key` is not one of the `known` keys.
    pub(super) fn unknown_key<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let problem = match nearest(key, known) {
            Some(similar) => format!("unknown key; did you mean `{similar}`?"),
            None => "unknown key".into(),
        };
        Self::new(key, problem)
    }
}

impl Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.problem)?;
        match &self.origin {
            Some(origin) => write!(formatter, " (in {origin})"),
            None => Ok(()),
        }
    }
}

impl From<InvalidKey> for ConfigError {
    fn from(invalid: InvalidKey) -> Self {
        Self::new(invalid.key, invalid.problem)
    }
}

impl de::Error for ConfigError {
    fn custom<T: Display>(problem: T) -> Self {
        Self::new("", problem.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new("", format!("expected {expected}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new("", format!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new("", format!("must be one of {}", expected.join(", ")))
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown_key(key, expected.iter().copied())
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new("", format!("`{key}` is required"))
    }
}

/// The known key that is most similar to `key`, if one is similar enough to be meant.
fn nearest<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let similarity = |known: &str| strsim::jaro_winkler(key, known);
    known
        .into_iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|known| similarity(known) > 0.8)
}
