//! How long to wait between two tries, and when to stop retrying.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    error::ClientError,
    transfer::{Event, Events},
};

/// When a transfer is tried again, and when it stops retrying. Only failures that may pass are retried at all.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use upload_gateway_client::RetryPolicy;
///
/// let patient = RetryPolicy { timeout: Duration::from_secs(3600), ..RetryPolicy::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Stop retrying when no further byte was transferred for this time.
    pub timeout: Duration,
    /// The first delay. Each delay is twice the one before, less up to a half at random. It starts again here when further
    /// bytes were transferred.
    pub min_delay: Duration,
    /// The longest delay, unless the gateway asks for a longer one.
    pub max_delay: Duration,
}

/// Delays between tries.
#[derive(Debug)]
pub(crate) struct BackOff {
    next: Duration,
    committed_size: u64,
    since: Instant,
    policy: RetryPolicy,
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// The first failure is final.
    ///
    /// # Examples
    /// ```
    /// assert!(upload_gateway_client::RetryPolicy::never().timeout.is_zero());
    /// ```
    pub fn never() -> Self {
        Self {
            timeout: Duration::ZERO,
            ..Self::default()
        }
    }
}

impl Default for RetryPolicy {
    /// A timeout of five minutes; delays from 100 milliseconds to 15 seconds.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            min_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(15),
        }
    }
}

// === impl BackOff ===

impl BackOff {
    /// `committed_size` bytes are transferred now.
    pub(crate) fn new(policy: RetryPolicy, committed_size: u64) -> Self {
        Self {
            next: policy.min_delay,
            committed_size,
            since: Instant::now(),
            policy,
        }
    }

    /// Starts again, as if more had been committed.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.policy.clone(), self.committed_size);
    }

    /// How long to wait before the next try, at least `requested`. None: stop retrying.
    fn next(&mut self, committed_size: u64, requested: Option<Duration>) -> Option<Duration> {
        if committed_size > self.committed_size {
            *self = Self::new(self.policy.clone(), committed_size);
        }
        if self.since.elapsed() >= self.policy.timeout {
            return None;
        }
        // Jitter, so that clients that lost the same gateway do not return together.
        let delay = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.policy.max_delay);
        Some(delay.max(requested.unwrap_or_default()))
    }

    /// Waits before the next try after `failure`, at least `requested`, and reports that.
    ///
    /// # Errors
    /// [`ClientError::NoProgress`] after the retry timeout; the failure itself if the policy does not retry.
    pub(crate) async fn wait(
        &mut self,
        (upload_id, committed_size): (Option<&str>, u64),
        failure: ClientError,
        requested: Option<Duration>,
        events: &Events,
    ) -> Result<(), ClientError> {
        let Some(delay) = self.next(committed_size, requested) else {
            if self.policy.timeout.is_zero() {
                return Err(failure);
            }
            return Err(ClientError::NoProgress {
                upload_id: upload_id.map(str::to_owned),
                retry_timeout: self.policy.timeout,
                source: Box::new(failure),
            });
        };
        events.report(Event::Retrying {
            cause: failure,
            delay,
        });
        sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back_off() -> BackOff {
        let policy = RetryPolicy {
            timeout: Duration::from_secs(60),
            ..RetryPolicy::default()
        };
        BackOff::new(policy, 0)
    }

    #[tokio::test(start_paused = true)]
    async fn the_retry_timeout_starts_again_when_more_is_committed() {
        let mut back_off = back_off();
        for committed_size in [0, 1, 2] {
            sleep(Duration::from_secs(59)).await;
            assert!(back_off.next(committed_size, None).is_some());
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(back_off.next(2, None), None);
        back_off.restart();
        assert!(back_off.next(2, None).is_some());
    }

    #[test]
    fn a_policy_without_retries_stops_at_the_first_failure() {
        assert_eq!(BackOff::new(RetryPolicy::never(), 0).next(0, None), None);
    }

    #[tokio::test]
    async fn delays_grow_up_to_a_maximum_and_respect_retry_info() {
        let mut back_off = back_off();
        let longest = RetryPolicy::default().max_delay;
        for _ in 0..20 {
            assert!(back_off.next(0, None).unwrap() <= longest);
        }
        assert!(back_off.next(0, None).unwrap() >= longest / 2);
        let requested = Duration::from_secs(40);
        assert_eq!(back_off.next(0, Some(requested)), Some(requested));
    }
}
