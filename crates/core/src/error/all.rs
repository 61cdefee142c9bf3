//! One error for all invalid fields of a request.

use super::{Error, Result};

/// How many invalid fields one error reports: it must fit into the trailers of a gRPC response, usually 8 KiB.
const MAX_VIOLATIONS: usize = 16;

/// The end of the message of an error that does not report all invalid fields.
const MORE: &str = "; and more";

/// Results that are wanted together.
pub trait All {
    /// The values of the results.
    type Values;

    /// The values of all results.
    ///
    /// # Errors
    /// One error with the violations of all errors, as [`Error::and`] makes it.
    ///
    /// ```
    /// use upload_gateway_core::error::{All, Error, Result};
    ///
    /// let size: Result<u64> = Err(Error::invalid("size", "must not be negative"));
    /// let name: Result<&str> = Err(Error::invalid("name", "must not be empty"));
    /// let error = (size, name).all().unwrap_err();
    /// assert_eq!(error.to_string(), "size: must not be negative; name: must not be empty");
    /// ```
    fn all(self) -> Result<Self::Values>;
}

macro_rules! all {
    ($($value:ident $result:ident),+) => {
        impl<$($value),+> All for ($(Result<$value>,)+) {
            type Values = ($($value,)+);

            fn all(self) -> Result<Self::Values> {
                match self {
                    ($(Ok($result),)+) => Ok(($($result,)+)),
                    ($($result,)+) => {
                        let errors = [$($result.err()),+].into_iter().flatten();
                        Err(errors.reduce(Error::and).expect("one result is an error"))
                    }
                }
            }
        }
    };
}

all!(A a, B b);
all!(A a, B b, C c);
all!(A a, B b, C c, D d);

/// The values of the results of a list. After as many errors as one error reports, the rest of the list is not read.
///
/// # Errors
/// As [`All::all`].
pub fn each<T>(results: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut values, mut failed) = (Vec::new(), None::<Error>);
    for result in results {
        failed = match (result, failed) {
            (Ok(value), failed) => {
                values.push(value);
                failed
            }
            (Err(error), None) => Some(error),
            (Err(error), Some(failed)) => Some(failed.and(error)),
        };
        if failed.as_ref().is_some_and(Error::is_full) {
            break;
        }
    }
    failed.map_or(Ok(values), Err)
}

// === impl Error ===

impl Error {
    /// Both errors as one, for a caller that fixes a request. Violations of both are reported, the first one of each field.
    /// If only one of the errors has violations, the other one is dropped: it may be a consequence.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        if self.0.violations.is_empty() || other.0.violations.is_empty() {
            return match self.0.violations.is_empty() {
                true if !other.0.violations.is_empty() => other,
                _ => self,
            };
        }
        for (key, value) in other.0.metadata {
            self.0.metadata.entry(key).or_insert(value);
        }
        for violation in other.0.violations {
            let is_reported = |known: &super::Violation| known.field == violation.field;
            if self.0.violations.iter().any(is_reported) {
                continue;
            }
            if self.is_full() {
                if !self.0.message.ends_with(MORE) {
                    self.0.message.push_str(MORE);
                }
                break;
            }
            let text = format!("; {}: {}", violation.field, violation.description);
            self.0.message.push_str(&text);
            self.0.violations.push(violation);
        }
        self
    }

    /// The same error about the fields of the field `parent`: `part` becomes `parts[3].part`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        for violation in &mut self.0.violations {
            violation.field = format!("{parent}.{}", violation.field).into();
        }
        let violations = self.0.violations.iter();
        let texts: Vec<_> = violations
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect();
        if !texts.is_empty() {
            self.0.message = texts.join("; ");
        }
        self
    }

    fn is_full(&self) -> bool {
        self.0.violations.len() >= MAX_VIOLATIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn fields(error: &Error) -> Vec<&str> {
        let violations = error.violations().iter();
        violations.map(|violation| &*violation.field).collect()
    }

    #[test]
    fn all_values_or_all_violations_are_returned() {
        let good = || -> Result<u8> { Ok(1) };
        let bad = |field: &'static str| -> Result<u8> { Err(Error::invalid(field, "bad")) };
        assert_eq!((good(), good(), good()).all().unwrap(), (1, 1, 1));
        let error = (bad("a"), good(), bad("b"), bad("a")).all().unwrap_err();
        assert_eq!(fields(&error), ["a", "b"]);
        assert_eq!(error.to_string(), "a: bad; b: bad");
        assert_eq!(each([good(), good()]).unwrap(), [1, 1]);
        let error = each([bad("x"), good(), bad("y")]).unwrap_err();
        assert_eq!(fields(&error), ["x", "y"]);
    }

    #[test]
    fn an_invalid_field_has_priority_over_other_errors() {
        let absent = || Error::upload_not_found("x");
        let invalid = || Error::invalid("a", "bad");
        for error in [absent().and(invalid()), invalid().and(absent())] {
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert_eq!(fields(&error), ["a"]);
        }
        assert_eq!(absent().and(absent()).kind(), Kind::NotFound);
    }

    #[test]
    fn an_error_reports_a_bounded_number_of_fields() {
        let mut read = 0;
        let results = (0..1_000_000).map(|number| {
            read = number;
            Err::<(), _>(Error::invalid(format!("parts[{number}]"), "bad"))
        });
        let error = each(results).unwrap_err();
        assert_eq!((error.violations().len(), read), (16, 15));
        let more = error.and(Error::invalid("a", "bad"));
        let more = more.and(Error::invalid("b", "bad")).to_string();
        assert!(more.ends_with("parts[15]: bad; and more"), "{more}");
    }

    #[test]
    fn a_nested_field_has_the_path_from_the_request() {
        let both = Error::invalid("part", "bad").and(Error::invalid("file_id", "bad"));
        let nested = both.within("parts[3]");
        assert_eq!(fields(&nested), ["parts[3].part", "parts[3].file_id"]);
        assert!(nested.to_string().starts_with("parts[3].part: bad; parts"));
    }
}
