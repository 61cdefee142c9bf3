//! The least rate of a stream, so that a place and memory are not held by one that only pretends to send.

use std::time::Duration;

use crate::error::{Error, Kind, Reason, Result};

/// How fast a sender is while the gateway waits for it. The time in which the gateway itself reads nothing, for want of
/// memory or of a store, does not count; keep-alives are no progress.
#[derive(Debug)]
pub(super) struct MinRate {
    /// Bytes in a second; 0: any rate is fine.
    least: u64,
    window: Duration,
    waited: Duration,
    received: u64,
}

// === impl MinRate ===

impl MinRate {
    /// At least `least` bytes a second, over each `window` that was spent waiting.
    pub(super) fn new(least: u64, window: Duration) -> Self {
        Self {
            least,
            window,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Notes that `bytes` came after `waited`.
    ///
    /// # Errors
    /// `Unavailable`, `TooSlow`, when the window is over and too few came.
    pub(super) fn record(&mut self, waited: Duration, bytes: usize) -> Result<()> {
        self.waited += waited;
        self.received += bytes as u64;
        if self.waited < self.window {
            return Ok(());
        }
        let wanted = self.least as f64 * self.waited.as_secs_f64();
        let is_too_slow = (self.received as f64) < wanted;
        (self.waited, self.received) = (Duration::ZERO, 0);
        if !is_too_slow {
            return Ok(());
        }
        let message = "the stream sent too little for too long; resume it when there is more";
        Err(Error::new(Kind::Unavailable, Reason::TooSlow, message)
            .with("min_rate", self.least)
            .retry_after(Duration::from_secs(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stream_below_the_least_rate_ends_after_the_window() {
        let mut min_rate = MinRate::new(1024, 10 * SECOND);
        for _ in 0..9 {
            min_rate.record(SECOND, 1023).unwrap();
        }
        let error = min_rate.record(SECOND, 1023).unwrap_err();
        assert_eq!(
            (error.kind(), error.reason()),
            (Kind::Unavailable, Reason::TooSlow)
        );
    }

    #[test]
    fn a_pause_is_made_up_for_by_what_comes_before_and_after_it() {
        let mut min_rate = MinRate::new(1024, 10 * SECOND);
        min_rate.record(SECOND, 5 * 1024).unwrap();
        min_rate.record(8 * SECOND, 0).unwrap();
        min_rate.record(SECOND, 5 * 1024).unwrap();
        // And what was fast in one window does not help in the next.
        assert!(min_rate.record(10 * SECOND, 0).is_err());
    }

    #[test]
    fn any_rate_is_fine_where_none_is_asked_for() {
        let mut min_rate = MinRate::new(0, SECOND);
        min_rate.record(100 * SECOND, 0).unwrap();
    }
}
