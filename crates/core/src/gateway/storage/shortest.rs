//! How many parts of one upload a store needs in flight.

use std::time::Duration;

use tokio::time::Instant;

/// No upload is faster to a store that takes its time, in bytes per second: half a GiB, more than one stream of a network of 4 Gbit/s
/// has. To a store that answers in 20 ms, [`MIN`] parts of 5 MiB are this fast.
const FASTEST: u64 = 512 * 1024 * 1024;

/// Nor are all uploads of a gateway together, in bytes per second.
const FASTEST_TOGETHER: u64 = 2 * FASTEST;

/// For how long a time counts at least; for twice as long at most, if other parts are stored.
const COUNTS_FOR: Duration = Duration::from_secs(10);

/// The fewest parts in flight: one is sent while the next one is hashed.
const MIN: usize = 2;

/// The shortest time for which a part was in flight lately. Longer times are no sign that more parts would help: they also contain
/// the time for which parts waited for each other.
#[derive(Debug, Default)]
pub(super) struct ShortestTime {
    current: Option<Duration>,
    previous: Option<Duration>,
    /// When `current` began.
    since: Option<Instant>,
}

// === impl ShortestTime ===

impl ShortestTime {
    /// A part was in flight for this time.
    pub(super) fn record(&mut self, took: Duration) {
        let age = self.since.map(|since| since.elapsed());
        if age.is_none_or(|age| age >= COUNTS_FOR) {
            self.previous = self
                .current
                .filter(|_| age.is_some_and(|age| age < 2 * COUNTS_FOR));
            self.current = None;
            self.since = Some(Instant::now());
        }
        self.current = Some(self.current.map_or(took, |least| least.min(took)));
    }

    /// How many parts of `size` bytes an upload has in flight that no other limit slows down: as many as arrive while one is in
    /// flight. The fewest as long as no time is known.
    pub(super) fn in_flight(&self, size: u64) -> usize {
        let parts = self.arriving(FASTEST).div_ceil(size.max(1));
        usize::try_from(parts).unwrap_or(usize::MAX).max(MIN)
    }

    /// How many bytes all uploads together have in flight that no other limit slows down. None as long as no time is known.
    pub(super) fn in_flight_together(&self) -> u64 {
        self.arriving(FASTEST_TOGETHER)
    }

    /// How many bytes arrive at this rate while one part is in flight.
    fn arriving(&self, rate: u64) -> u64 {
        let times = [self.current, self.previous];
        let least = times.into_iter().flatten().min().unwrap_or_default();
        let bytes = least.as_nanos() * u128::from(rate) / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::upload::{MIB, PART_SIZE};

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_quick_store_gets_few_parts_and_a_slow_one_many() {
        for (time, expected) in [(0, 2), (6, 2), (20, 3), (200, 21)] {
            let mut shortest = ShortestTime::default();
            shortest.record(time * MS);
            assert_eq!(shortest.in_flight(PART_SIZE), expected, "{time} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn larger_parts_take_longer_and_are_not_more() {
        let mut shortest = ShortestTime::default();
        shortest.record(200 * MS);
        assert_eq!(shortest.in_flight(64 * MIB), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_fewest_are_in_flight_until_a_time_is_known() {
        assert_eq!(ShortestTime::default().in_flight(PART_SIZE), MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn parts_that_wait_for_each_other_are_no_reason_for_more() {
        let mut shortest = ShortestTime::default();
        for time in [300, 7, 400] {
            shortest.record(time * MS);
        }
        assert_eq!(shortest.in_flight(PART_SIZE), MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_has_become_slow_gets_more_within_twenty_seconds() {
        let mut shortest = ShortestTime::default();
        shortest.record(6 * MS);
        let mut seen = Vec::new();
        for _ in 0..25 {
            advance(Duration::from_secs(1)).await;
            shortest.record(60 * MS);
            seen.push(shortest.in_flight(PART_SIZE));
        }
        assert_eq!(seen[..19], [2; 19]);
        assert_eq!(seen[19..], [7; 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_counts_until_another_is_known() {
        let mut shortest = ShortestTime::default();
        shortest.record(60 * MS);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(shortest.in_flight(PART_SIZE), 7);
        shortest.record(6 * MS);
        assert_eq!(shortest.in_flight(PART_SIZE), 2);
        advance(Duration::from_secs(3600)).await;
        shortest.record(60 * MS);
        assert_eq!(shortest.in_flight(PART_SIZE), 7);
    }
}
