//! The minimum rate of a stream, so that a stream that hardly sends does not occupy a permit and memory.

use std::time::Duration;

use crate::error::{Error, Kind, Reason, Result};

/// Measures how fast a sender is while the gateway waits for it. Time in which the gateway does not read, because
/// memory or a store is unavailable, does not count. Keep-alive messages are not progress.
#[derive(Debug)]
pub(super) struct MinRate {
    /// The minimum rate in bytes per second. 0: no minimum.
    min: u64,
    window: Duration,
    waited: Duration,
    received: u64,
}

// === impl MinRate ===

impl MinRate {
    /// Requires `min` bytes per second on average, over each `window` of waiting time.
    pub(super) fn new(min: u64, window: Duration) -> Self {
        Self {
            min,
            window,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Records that `bytes` arrived after a wait of `waited`.
    ///
    /// # Errors
    /// `Unavailable` with `TooSlow` if the window is over and too few bytes arrived.
    pub(super) fn record(&mut self, waited: Duration, bytes: usize) -> Result<()> {
        self.waited += waited;
        self.received += bytes as u64;
        if self.waited < self.window {
            return Ok(());
        }
        let wanted = self.min as f64 * self.waited.as_secs_f64();
        let is_too_slow = (self.received as f64) < wanted;
        (self.waited, self.received) = (Duration::ZERO, 0);
        if !is_too_slow {
            return Ok(());
        }
        let message =
            "the stream was slower than the minimum rate; resume it when there is more to send";
        Err(Error::new(Kind::Unavailable, Reason::TooSlow, message)
            .with("min_rate", self.min)
            .retry_after(Duration::from_secs(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stream_below_the_minimum_rate_ends_after_the_window() {
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
    fn the_rate_is_an_average_over_the_window() {
        let mut min_rate = MinRate::new(1024, 10 * SECOND);
        min_rate.record(SECOND, 5 * 1024).unwrap();
        min_rate.record(8 * SECOND, 0).unwrap();
        min_rate.record(SECOND, 5 * 1024).unwrap();
        // The rate of one window does not count in the next.
        assert!(min_rate.record(10 * SECOND, 0).is_err());
    }

    #[test]
    fn every_rate_is_accepted_without_a_minimum() {
        let mut min_rate = MinRate::new(0, SECOND);
        min_rate.record(100 * SECOND, 0).unwrap();
    }
}
