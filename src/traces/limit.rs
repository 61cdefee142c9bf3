//! Which spans of one kind a call reports. An upload of 10,000 parts must not drown a collector.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The number of spans that are reported whatever happens to them.
pub(super) const FIRST: u32 = 200;

/// The number of later spans that are reported because they failed or were slow.
const NOTABLE: u32 = 200;

/// A span is slow if it lasted at least this long…
const SLOW: Duration = Duration::from_secs(1);

/// …and longer than this many times the average of those before it: on a slow store all are slow.
const SLOW_FACTOR: u32 = 4;

/// Counts the spans of one kind.
#[derive(Debug, Default)]
pub(super) struct Limit(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    seen: u32,
    time: Duration,
    notable: u32,
    omitted: u64,
}

// === impl Limit ===

impl Limit {
    /// Whether the next span is reported.
    pub(super) fn admits(&self, took: Duration, has_failed: bool) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).seen;
        self.admits_number(seen.saturating_add(1), took, has_failed)
    }

    /// Whether the span with this number, from 1, is reported.
    pub(super) fn admits_number(&self, number: u32, took: Duration, has_failed: bool) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let average = counts.time.checked_div(counts.seen).unwrap_or_default();
        let is_slow = took >= SLOW && took > SLOW_FACTOR * average;
        counts.seen = counts.seen.saturating_add(1);
        counts.time = counts.time.saturating_add(took);
        if number <= FIRST {
            return true;
        }
        if (has_failed || is_slow) && counts.notable < NOTABLE {
            counts.notable += 1;
            return true;
        }
        counts.omitted += 1;
        false
    }

    /// How many were not reported.
    pub(super) fn omitted(&self) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.omitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(500);

    #[test]
    fn after_the_first_spans_only_failed_and_slow_ones_are_reported() {
        let limit = Limit::default();
        assert!((0..FIRST).all(|_| limit.admits(QUICK, false)));
        assert!(!limit.admits(QUICK, false));
        assert!(limit.admits(QUICK, true));
        assert!(!limit.admits(4 * QUICK, false));
        assert!(limit.admits(5 * QUICK, false));
        assert_eq!(limit.omitted(), 2);
    }

    #[test]
    fn spans_of_less_than_a_second_are_not_slow() {
        let limit = Limit::default();
        let short = Duration::from_millis(1);
        assert!((0..FIRST).all(|_| limit.admits(short, false)));
        assert!(!limit.admits(Duration::from_millis(999), false));
        assert!(limit.admits(Duration::from_secs(1), false));
    }

    #[test]
    fn ten_thousand_spans_that_fail_or_are_slow_are_not_all_reported() {
        let failing = Limit::default();
        let failed = (0..10_000).filter(|_| failing.admits(QUICK, true)).count();
        assert_eq!(failed, 400);
        let slowing = Limit::default();
        let slow = (1..=10_000).filter(|&number| slowing.admits(number * SLOW, false));
        assert_eq!(slow.count(), FIRST as usize);
    }

    #[test]
    fn a_stream_that_resumes_after_the_first_parts_reports_none_of_them_again() {
        let limit = Limit::default();
        assert!(limit.admits_number(FIRST, QUICK, false));
        assert!(!limit.admits_number(FIRST + 1, QUICK, false));
    }
}
