//! How many parts may be in flight to one store.

use std::time::Duration;

use tokio::time::Instant;

/// A part that takes longer is a sign that too many share the way to the store.
const SLOW_PART: Duration = Duration::from_secs(30);

/// A limit that grows by one after as many quick parts as it has, and halves when a part is slow or the store cannot keep
/// up (additive increase, multiplicative decrease).
#[derive(Debug)]
pub(super) struct AdaptiveLimit {
    current: usize,
    max: usize,
    /// The number of quick parts since the last change.
    quick: usize,
    reduced_at: Option<Instant>,
}

// === impl AdaptiveLimit ===

impl AdaptiveLimit {
    /// A limit that starts at `max`, which it never exceeds.
    pub(super) fn new(max: usize) -> Self {
        Self {
            current: max,
            max,
            quick: 0,
            reduced_at: None,
        }
    }

    /// How many parts may be in flight: at least one.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// A put of a part that began at `begun` has succeeded.
    pub(super) fn put(&mut self, begun: Instant) {
        if begun.elapsed() > SLOW_PART {
            self.reduce(begun);
            return;
        }
        self.quick += 1;
        if self.quick >= self.current {
            self.quick = 0;
            self.current = self.max.min(self.current + 1);
        }
    }

    /// A put that began at `begun` was slow, timed out or was throttled. Halves the limit once for all parts that were in
    /// flight together.
    pub(super) fn reduce(&mut self, begun: Instant) {
        if self.reduced_at.is_some_and(|reduced| begun <= reduced) {
            return;
        }
        self.current = (self.current / 2).max(1);
        self.quick = 0;
        self.reduced_at = Some(Instant::now());
        tracing::debug!(
            limit = self.current,
            "reduced the number of parts in flight"
        );
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    async fn put(limit: &mut AdaptiveLimit, took: Duration) {
        let begun = Instant::now();
        advance(took).await;
        limit.put(begun);
    }

    async fn throttled(limit: &mut AdaptiveLimit) {
        advance(Duration::from_millis(1)).await;
        limit.reduce(Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_halves_down_to_one() {
        let mut limit = AdaptiveLimit::new(16);
        for expected in [8, 4, 2, 1, 1] {
            throttled(&mut limit).await;
            assert_eq!(limit.current(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_grows_by_one_after_as_many_quick_parts_as_it_has() {
        let mut limit = AdaptiveLimit::new(4);
        throttled(&mut limit).await;
        throttled(&mut limit).await;
        let mut seen = Vec::new();
        for _ in 0..8 {
            put(&mut limit, Duration::from_secs(30)).await;
            seen.push(limit.current());
        }
        assert_eq!(seen, [2, 2, 3, 3, 3, 4, 4, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_part_halves_the_limit() {
        let mut limit = AdaptiveLimit::new(8);
        put(&mut limit, Duration::from_secs(31)).await;
        assert_eq!(limit.current(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn parts_that_were_in_flight_together_halve_it_once() {
        let mut limit = AdaptiveLimit::new(8);
        let begun = Instant::now();
        advance(Duration::from_secs(40)).await;
        for _ in 0..8 {
            limit.put(begun);
        }
        assert_eq!(limit.current(), 4);
    }
}
