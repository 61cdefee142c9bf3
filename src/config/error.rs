//! Configuration errors, in words for the operator.

use std::fmt::{self, Display};

use serde::de;

use crate::values::InvalidKey;

/// What a listen address looks like.
const ADDRESS: &str = "an address and a port, such as 127.0.0.1:50051";

/// A key that is unknown or has an invalid value. The message never contains the value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The path of the key, `limits.memory_budget`. Empty if the error concerns a whole file.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// The line of the file, the variable or the flag that the key comes from. None if none sets the key or its table.
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
        let known: Vec<&str> = known.into_iter().collect();
        let problem = match nearest(key, known.iter().copied()) {
            Some(similar) => format!("unknown key; did you mean `{similar}`?"),
            None if known.is_empty() => "unknown key".into(),
            None => format!("unknown key; expected one of {}", known.join(", ")),
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
        let problem = problem.to_string();
        match problem.as_str() {
            "invalid socket address syntax" => Self::new("", format!("expected {ADDRESS}")),
            _ => Self::new("", problem),
        }
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new("", format!("expected {}", in_words(expected)))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new("", format!("expected {}", in_words(expected)))
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

/// What serde expects, in the words of TOML instead of Rust's.
fn in_words(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0".into(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".into(),
        "a boolean" => "true or false".into(),
        "a string" | "path string" => "text in quotes".into(),
        "socket address" => ADDRESS.into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        text if text.starts_with("struct ") => "a table".into(),
        text => text.into(),
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
