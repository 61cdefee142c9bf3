//! Holding on while a store or the state store is away.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Result;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long to hold on: the one retry policy towards stores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the beginning of the first attempt that failed until the failure is passed on.
    pub(super) total: Duration,
}

// === impl Patience ===

impl Patience {
    /// Repeats `operation` while it fails with a retryable error, with exponential back-off and full jitter, until
    /// [`Patience::total`] has gone by since the first attempt that failed began. The first attempt itself is bounded by
    /// its store's own time-out. The operation must be idempotent, and may be broken off.
    ///
    /// # Errors
    /// The last failure; a retryable one says when to come back.
    pub(super) async fn hold<T, F>(&self, mut operation: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut failed = match operation().await {
            Err(error) if error.is_retryable() => error,
            done => return done,
        };
        let give_up = begun + self.total;
        loop {
            let asked = failed.retry_delay();
            let wait = asked.unwrap_or_default().max(pause.mul_f64(rand::random()));
            if wait >= give_up.saturating_duration_since(Instant::now()) {
                return Err(failed.retry_after(asked.unwrap_or(LONGEST_PAUSE)));
            }
            tracing::debug!(error = %failed, cause = ?std::error::Error::source(&failed), "hold on");
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            failed = match timeout_at(give_up, operation()).await {
                Ok(Err(error)) if error.is_retryable() => error,
                Ok(done) => return done,
                Err(_) => return Err(failed.retry_after(asked.unwrap_or(LONGEST_PAUSE))),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::{Error, Kind};

    #[tokio::test(start_paused = true)]
    async fn an_outage_shorter_than_the_patience_goes_unnoticed() {
        let back = Instant::now() + Duration::from_secs(20);
        let patience = Patience {
            total: Duration::from_secs(30),
        };
        let result = patience
            .hold(|| async move {
                if Instant::now() < back {
                    Err(Error::state_unavailable("away"))
                } else {
                    Ok(())
                }
            })
            .await;
        assert!(result.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_outage_is_passed_on_with_a_delay() {
        let begin = Instant::now();
        let patience = Patience {
            total: Duration::from_secs(30),
        };
        let error = patience
            .hold(|| async { Err::<(), _>(Error::state_unavailable("away")) })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.retry_delay().is_some());
        let held = begin.elapsed();
        assert!(
            held > Duration::from_secs(25) && held <= Duration::from_secs(30),
            "{held:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_not_held_longer_than_one_that_refuses() {
        let begin = Instant::now();
        let patience = Patience {
            total: Duration::from_secs(30),
        };
        let result = patience
            .hold(|| async {
                sleep(Duration::from_secs(20)).await;
                Err::<(), _>(Error::store_unavailable("timed out"))
            })
            .await;
        assert!(result.is_err());
        assert!(
            begin.elapsed() <= Duration::from_secs(30),
            "{:?}",
            begin.elapsed()
        );
    }

    #[tokio::test]
    async fn what_cannot_get_better_is_not_repeated() {
        let calls = Cell::new(0);
        let patience = Patience {
            total: Duration::from_secs(30),
        };
        let result: Result<()> = patience
            .hold(|| async {
                calls.set(calls.get() + 1);
                Err(Error::fault("no"))
            })
            .await;
        assert!(result.is_err());
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_asks_for_more_patience_than_there_is_time_is_given_up() {
        let patience = Patience {
            total: Duration::from_secs(30),
        };
        let busy = || async {
            let error = Error::store_unavailable("busy");
            Err::<(), _>(error.retry_after(Duration::from_secs(u64::MAX)))
        };
        assert!(patience.hold(busy).await.is_err());
    }
}
