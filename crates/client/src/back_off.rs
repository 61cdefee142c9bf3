//! How long to wait between two tries, and when to stop retrying.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{error::ClientError, upload::Event};

/// The longest delay between two tries.
const MAX_DELAY: Duration = Duration::from_secs(15);

/// The first delay. Each delay is twice the one before.
const MIN_DELAY: Duration = Duration::from_millis(100);

/// Delays between tries. They start again from [`MIN_DELAY`] when more was committed.
#[derive(Debug)]
pub(crate) struct BackOff {
    next: Duration,
    committed_size: u64,
    since: Instant,
    retry_timeout: Duration,
}

// === impl BackOff ===

impl BackOff {
    /// Stops retrying when nothing more was committed for `retry_timeout`. `committed_size` bytes are committed now.
    pub(crate) fn new(retry_timeout: Duration, committed_size: u64) -> Self {
        Self {
            next: MIN_DELAY,
            committed_size,
            since: Instant::now(),
            retry_timeout,
        }
    }

    /// Starts again, as if more had been committed.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.retry_timeout, self.committed_size);
    }

    /// How long to wait before the next try, at least `requested`. None: stop retrying.
    fn next(&mut self, committed_size: u64, requested: Option<Duration>) -> Option<Duration> {
        if committed_size > self.committed_size {
            *self = Self::new(self.retry_timeout, committed_size);
        }
        if self.since.elapsed() >= self.retry_timeout {
            return None;
        }
        // Jitter, so that clients that lost the same gateway do not return together.
        let delay = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(MAX_DELAY);
        Some(delay.max(requested.unwrap_or_default()))
    }

    /// Waits before the next try after `failure`, at least `requested`, and reports that.
    ///
    /// # Errors
    /// [`ClientError::NoProgress`] after the retry timeout.
    pub(crate) async fn wait(
        &mut self,
        (upload_id, committed_size): (Option<&str>, u64),
        failure: ClientError,
        requested: Option<Duration>,
        on_event: impl FnOnce(Event<'_>),
    ) -> Result<(), ClientError> {
        let Some(delay) = self.next(committed_size, requested) else {
            return Err(ClientError::NoProgress {
                upload_id: upload_id.map(str::to_owned),
                retry_timeout: self.retry_timeout,
                source: Box::new(failure),
            });
        };
        on_event(Event::Retrying {
            cause: &failure,
            delay,
        });
        sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_retry_timeout_starts_again_when_more_is_committed() {
        let mut back_off = BackOff::new(Duration::from_secs(60), 0);
        for committed_size in [0, 1, 2] {
            sleep(Duration::from_secs(59)).await;
            assert!(back_off.next(committed_size, None).is_some());
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(back_off.next(2, None), None);
        back_off.restart();
        assert!(back_off.next(2, None).is_some());
    }

    #[tokio::test]
    async fn delays_grow_up_to_a_maximum_and_respect_retry_info() {
        let mut back_off = BackOff::new(Duration::from_secs(60), 0);
        for _ in 0..20 {
            assert!(back_off.next(0, None).unwrap() <= MAX_DELAY);
        }
        assert!(back_off.next(0, None).unwrap() >= MAX_DELAY / 2);
        let requested = Duration::from_secs(40);
        assert_eq!(back_off.next(0, Some(requested)), Some(requested));
    }
}
