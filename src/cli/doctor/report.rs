//! The results of the checks, and how they are printed: a line for each, or one JSON document.

use serde::Serialize;
use serde_json::{Value, json};
use upload_gateway_core::escape::escaped;

use crate::cli::{error::CliError, output};

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was checked: a storage, the state store, a key of the configuration.
    pub(super) subject: String,
    /// What was looked at.
    pub(super) check: &'static str,
    pub(super) result: Outcome,
    /// What was found, in words.
    pub(super) found: String,
    /// What to do, unless all is well.
    #[serde(flatten)]
    pub(super) fix: Fix,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Ok,
    /// Uploads work, and something is likely not meant so.
    Warning,
    /// Uploads would fail.
    Failed,
    /// It could not be seen. That is neither good nor bad.
    #[serde(rename = "not checked")]
    NotChecked,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Fix {
    /// The key of the configuration to change.
    pub(super) key: Option<String>,
    /// The value that works, in TOML, if it is known.
    pub(super) value: Option<String>,
    /// What else helps.
    pub(super) advice: Option<String>,
    /// What to paste: a rule for a store.
    pub(super) rule: Option<Value>,
}

/// Prints the results.
#[derive(Debug)]
pub(super) struct Report {
    is_json: bool,
    checks: Vec<Check>,
}

// === impl Check ===

impl Check {
    pub(super) fn ok(subject: &str, check: &'static str, found: impl Into<String>) -> Self {
        Self::new(subject, check, Outcome::Ok, found)
    }

    pub(super) fn warning(subject: &str, check: &'static str, found: impl Into<String>) -> Self {
        Self::new(subject, check, Outcome::Warning, found)
    }

    pub(super) fn failed(subject: &str, check: &'static str, found: impl Into<String>) -> Self {
        Self::new(subject, check, Outcome::Failed, found)
    }

    /// `found` is why it could not be seen.
    pub(super) fn not_checked(
        subject: &str,
        check: &'static str,
        found: impl Into<String>,
    ) -> Self {
        Self::new(subject, check, Outcome::NotChecked, found)
    }

    fn new(subject: &str, check: &'static str, result: Outcome, found: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            check,
            result,
            found: found.into(),
            fix: Fix::default(),
        }
    }

    /// The same result, with what to do.
    pub(super) fn with(self, fix: Fix) -> Self {
        Self { fix, ..self }
    }

    pub(super) fn is_failed(&self) -> bool {
        self.result == Outcome::Failed
    }

    /// The result in words: a line, and another one with what to do. Text of servers cannot break a line.
    fn lines(&self) -> impl Iterator<Item = String> {
        let Self {
            subject,
            check,
            found,
            ..
        } = self;
        let first = match self.result {
            Outcome::Ok => format!("ok    {subject}: {found}"),
            Outcome::Warning => format!("WARN  {subject}: {found}"),
            Outcome::Failed => format!("FAIL  {subject}: {check}: {found}"),
            Outcome::NotChecked => format!("skip  {subject}: {check}: not checked: {found}"),
        };
        let indented = |text: String| format!("      {text}");
        let fix = self.fix.text().map(indented);
        let rule = self
            .fix
            .rule
            .as_ref()
            .map(|rule| indented(rule.to_string()));
        [Some(first), fix, rule]
            .into_iter()
            .flatten()
            .map(|line| escaped(&line).into_owned())
    }
}

// === impl Fix ===

impl Fix {
    /// Advice that no key of the configuration follows.
    pub(super) fn advice(advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..Self::default()
        }
    }

    /// A key to change.
    pub(super) fn key(key: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::advice(advice)
        }
    }

    /// A key, and the text that it must have.
    pub(super) fn set(key: impl Into<String>, value: &str) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(format!("\"{value}\"")),
            ..Self::default()
        }
    }

    /// The same, with advice.
    pub(super) fn and(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    fn text(&self) -> Option<String> {
        let Self {
            key, value, advice, ..
        } = self;
        let first = match (key, value) {
            (Some(key), Some(value)) => Some(format!("set {key} = {value}")),
            (Some(key), None) => Some(key.clone()),
            (None, _) => None,
        };
        let parts: Vec<_> = [first.as_ref(), advice.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        (!parts.is_empty()).then(|| parts.join(": "))
    }
}

// === impl Report ===

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            checks: Vec::new(),
        }
    }

    /// Adds results. Lines are printed at once.
    pub(super) fn add(&mut self, checks: impl IntoIterator<Item = Check>) -> Result<(), CliError> {
        for check in checks {
            if !self.is_json {
                check.lines().try_for_each(output::data)?;
            }
            self.checks.push(check);
        }
        Ok(())
    }

    pub(super) fn has_failed(&self) -> bool {
        self.checks.iter().any(Check::is_failed)
    }

    /// Prints the document.
    ///
    /// # Errors
    /// A check failed.
    pub(super) fn end(self) -> Result<(), CliError> {
        let failures = self.checks.iter().filter(|check| check.is_failed()).count();
        if self.is_json {
            output::data(json!({ "checks": self.checks }))?;
        }
        match failures {
            0 => Ok(()),
            1 => Err(CliError::failed("1 check failed")),
            failures => Err(CliError::failed(format!("{failures} checks failed"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(check: &Check) -> String {
        check.lines().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_result_has_a_line_and_another_one_with_what_to_do() {
        assert_eq!(
            text(&Check::ok("redis", "write", "written")),
            "ok    redis: written"
        );
        let fix = Fix::set("storage.media.region", "eu-central-1").and("the bucket is there");
        assert_eq!(
            text(&Check::failed("storage media", "find the bucket", "elsewhere").with(fix)),
            "FAIL  storage media: find the bucket: elsewhere\n      \
             set storage.media.region = \"eu-central-1\": the bucket is there"
        );
        let hidden = Check::not_checked("storage media", "versioning", "AccessDenied");
        assert_eq!(
            text(&hidden.with(Fix::advice("allow it"))),
            "skip  storage media: versioning: not checked: AccessDenied\n      allow it"
        );
        let key = Fix::key("redis_url", "check it");
        assert_eq!(
            text(&Check::warning("redis", "clock", "late").with(key)),
            "WARN  redis: late\n      redis_url: check it"
        );
    }

    #[test]
    fn text_of_a_server_stays_in_its_line() {
        let check = Check::failed("storage", "write", "no\nok    storage: fine");
        assert_eq!(check.lines().count(), 1);
        assert!(!text(&check).contains('\n'));
    }

    #[test]
    fn the_document_names_the_result_the_key_and_the_value() {
        let fix = Fix::set("redis.mode", "cluster");
        let check = Check::failed("redis", "connect", "wrong mode").with(fix);
        let document = serde_json::to_value(&check).unwrap();
        let expected = json!({
            "subject": "redis", "check": "connect", "result": "failed", "found": "wrong mode",
            "key": "redis.mode", "value": "\"cluster\"", "advice": null, "rule": null,
        });
        assert_eq!(document, expected);
    }
}
