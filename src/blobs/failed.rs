//! Why a request to a store failed, for the log.

use std::{
    error::Error as StdError,
    iter,
    time::{Duration, SystemTime},
};

use upload_gateway_core::error::Error;

/// Stores accept signatures from clocks that differ by at most 15 minutes (S3) or 5 minutes before a SAS starts (Azure);
/// a difference of this size is worth a look.
const NOTABLE_DIFFERENCE: Duration = Duration::from_secs(60);

/// A failed request: what the store answered, and how far its clock is from the one of this machine.
#[derive(Debug, thiserror::Error)]
#[error("{answer}{clock}")]
pub(super) struct Failed {
    answer: String,
    /// Whether `answer` has what the store answered; otherwise there was no answer.
    has_answer: bool,
    clock: String,
    source: Box<dyn StdError + Send + Sync>,
}

// === impl Failed ===

impl Failed {
    /// `date` is the `Date` of the response. Without an answer the cause is in `source`.
    pub(super) fn new(
        answer: String,
        has_answer: bool,
        date: Option<&str>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        Self {
            answer,
            has_answer,
            clock: date.map_or_else(String::new, |date| difference(date, SystemTime::now())),
            source: source.into(),
        }
    }
}

/// An error of a store in words for an operator: without the types of the SDKs, and without what a store says in XML.
pub(crate) fn in_words(error: &Error) -> String {
    let mut causes = iter::successors(Some(error as &(dyn StdError + 'static)), |error| {
        (*error).source()
    });
    match causes.find_map(|cause| cause.downcast_ref::<Failed>()) {
        None => error.to_string(),
        Some(failed) if failed.has_answer => failed.to_string(),
        Some(failed) => {
            let last = iter::successors(Some(failed as &(dyn StdError + 'static)), |error| {
                (*error).source()
            })
            .last();
            last.map_or_else(|| failed.to_string(), |last| format!("{failed}: {last}"))
        }
    }
}

/// The difference between the clocks as text; empty if it is small.
fn difference(store: SystemTime, ours: SystemTime) -> String {
    let (difference, direction) = match store.duration_since(ours) {
        Ok(ahead) => (ahead, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    if difference < NOTABLE_DIFFERENCE {
        return String::new();
    }
    let seconds = difference.as_secs();
    format!("; the clock of this machine is {seconds} s {direction} the clock of the store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_the_clocks_is_named_with_its_direction() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let (earlier, later) = (
            ours - Duration::from_secs(960),
            ours + Duration::from_secs(960),
        );
        assert_eq!(
            difference(later, ours),
            "; the clock of this machine is 960 s behind the clock of the store"
        );
        assert_eq!(
            difference(earlier, ours),
            "; the clock of this machine is 960 s ahead of the clock of the store"
        );
        assert_eq!(difference(ours + Duration::from_secs(59), ours), "");
    }
}
