//! Holding on while a store or the state store is away: the one retry policy. No adapter and no SDK has another.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Result;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How many retries one call allows, its own or another's.
const RETRIES_PER_CALL: f64 = 0.1;

/// How many retries a second are allowed besides: enough to notice that a store is back.
const RETRIES_PER_SECOND: f64 = 10.0;

/// How many retries one that succeeded allows: the store is back, and twice as many may follow each time.
const RETRIES_PER_SUCCESS: f64 = 2.0;

/// The most retries that can be saved up.
const MOST_RETRIES: f64 = 100.0;

/// How long to hold on, and how often the whole process may try again meanwhile.
#[derive(Debug)]
pub(super) struct Retry {
    /// From the beginning of the first attempt that failed until the failure is passed on.
    total: Duration,
    budget: RetryBudget,
}

/// The retries that the process may make, so that an outage is not made worse by all who wait for its end.
#[derive(Debug)]
struct RetryBudget(Mutex<Allowance>);

#[derive(Debug)]
struct Allowance {
    retries: f64,
    at: Instant,
}

// === impl Retry ===

impl Retry {
    /// Holds on for `total`.
    pub(super) fn new(total: Duration) -> Self {
        Self {
            total,
            budget: RetryBudget::new(),
        }
    }

    /// Repeats `operation` while it fails with a retryable error, with exponential back-off and full jitter, not before the
    /// failure says so and as the process's budget allows, until [`Retry::total`] has gone by since the first attempt
    /// that failed began. The first attempt itself is bounded by its store's own time-out. The operation must be idempotent,
    /// and may be broken off.
    ///
    /// # Errors
    /// The last failure; a retryable one says when to come back.
    pub(super) async fn run<T, F>(&self, mut operation: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let begun = Instant::now();
        self.budget.allow(RETRIES_PER_CALL);
        let mut pause = FIRST_PAUSE;
        let mut failed = match operation().await {
            Err(error) if error.is_retryable() => error,
            done => return done,
        };
        let give_up = begun + self.total;
        loop {
            let asked = failed.retry_delay();
            let mut wait = asked.unwrap_or_default().max(jittered(pause));
            loop {
                if wait >= give_up.saturating_duration_since(Instant::now()) {
                    return Err(failed.retry_after(asked.unwrap_or(LONGEST_PAUSE)));
                }
                sleep(wait).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if self.budget.take() {
                    break;
                }
                wait = jittered(pause);
            }
            tracing::debug!(error = %failed, cause = ?std::error::Error::source(&failed), "try again");
            failed = match timeout_at(give_up, operation()).await {
                Ok(Err(error)) if error.is_retryable() => error,
                Ok(done) => {
                    self.budget.allow(RETRIES_PER_SUCCESS);
                    return done;
                }
                Err(_) => return Err(failed.retry_after(asked.unwrap_or(LONGEST_PAUSE))),
            };
        }
    }
}

/// A part of `pause`, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random())
}

// === impl RetryBudget ===

impl RetryBudget {
    fn new() -> Self {
        Self(Mutex::new(Allowance {
            retries: MOST_RETRIES,
            at: Instant::now(),
        }))
    }

    fn allow(&self, retries: f64) {
        self.change(retries);
    }

    /// Takes one retry, if there is one.
    fn take(&self) -> bool {
        self.change(-1.0)
    }

    /// Whether there is so much to be taken.
    fn change(&self, retries: f64) -> bool {
        let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = (now - allowance.at).as_secs_f64() * RETRIES_PER_SECOND;
        allowance.at = now;
        allowance.retries = (allowance.retries + earned).min(MOST_RETRIES);
        let is_enough = allowance.retries + retries >= 0.0;
        if is_enough {
            allowance.retries += retries;
        }
        is_enough
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
        let retry = Retry::new(Duration::from_secs(30));
        let result = retry
            .run(|| async move {
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
        let retry = Retry::new(Duration::from_secs(30));
        let error = retry
            .run(|| async { Err::<(), _>(Error::state_unavailable("away")) })
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
        let retry = Retry::new(Duration::from_secs(30));
        let result = retry
            .run(|| async {
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
        let retry = Retry::new(Duration::from_secs(30));
        let result: Result<()> = retry
            .run(|| async {
                calls.set(calls.get() + 1);
                Err(Error::fault("no"))
            })
            .await;
        assert!(result.is_err());
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_asks_for_more_patience_than_there_is_time_is_given_up() {
        let retry = Retry::new(Duration::from_secs(30));
        let busy = || async {
            let error = Error::store_unavailable("busy");
            Err::<(), _>(error.retry_after(Duration::from_secs(u64::MAX)))
        };
        assert!(retry.run(busy).await.is_err());
    }

    /// A thousand calls wait for a store that is away for 20 seconds.
    #[tokio::test(start_paused = true)]
    async fn an_outage_is_not_made_worse_and_its_end_is_noticed() {
        let retry = Retry::new(Duration::from_secs(30));
        let back = Instant::now() + Duration::from_secs(20);
        let tries = Cell::new(0_u32);
        let calls = (0..1000).map(|_| {
            retry.run(|| async {
                if Instant::now() < back {
                    tries.set(tries.get() + 1);
                    Err(Error::store_unavailable("away"))
                } else {
                    Ok(())
                }
            })
        });
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(Result::is_ok));
        // The calls themselves, a tenth of them, what was saved up, and 10 a second.
        let retries = tries.get() - 1000;
        assert!(retries <= 100 + 100 + 200, "{retries}");
        let late = Instant::now() - back;
        assert!(late < Duration::from_secs(9), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_is_not_asked_before_it_wants_to_be() {
        let begin = Instant::now();
        let asked = Cell::new(0);
        let retry = Retry::new(Duration::from_secs(30));
        let result = retry.run(|| async {
            asked.set(asked.get() + 1);
            if asked.get() < 3 {
                let busy = Error::store_unavailable("slow down");
                return Err(busy.retry_after(Duration::from_secs(4)));
            }
            Ok(())
        });
        result.await.unwrap();
        assert!(begin.elapsed() >= Duration::from_secs(8));
    }
}
