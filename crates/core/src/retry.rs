//! Retries while a blob store or the state store is unavailable. This is the only retry policy: adapters and SDKs do
//! not retry.
//!
//! [`Retry`] decorates the ports. If a call has a [`CallWait`] in its [scope](crate::call), the configured time-out
//! applies to the whole call, however many requests it makes.

mod refusals;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use self::refusals::Refusals;
use crate::{
    blobs::BlobStore,
    call,
    decorate::Around,
    error::{Error, Result},
};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The first pause. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The number of retries that each request adds to the retry budget.
const RETRIES_PER_CALL: f64 = 0.1;

/// The number of retries that each second adds to the retry budget: enough to notice that a store is available again.
const RETRIES_PER_SECOND: f64 = 10.0;

/// The number of retries that each successful retry adds to the retry budget. The store is available again, so the
/// number of retries may double each time.
const RETRIES_PER_SUCCESS: f64 = 2.0;

/// The largest number of retries in the budget.
const MOST_RETRIES: f64 = 100.0;

/// The calls that send the bytes of a file.
const MOVES_BYTES: [&str; 2] = ["store.put_object", "store.put_part"];

/// Retries requests for a limited time, within its retry budget.
#[derive(Debug)]
pub struct Retry {
    /// The time from the start of the first failed attempt until the failure is returned.
    total: Duration,
    budget: RetryBudget,
    /// The blob store whose requests are retried, and the id of its storage.
    store: Option<(Arc<dyn BlobStore>, String)>,
    refusals: Refusals,
}

/// How long one call has waited for unavailable stores in total. Without it each request of a call, in a row or at the
/// same time, would wait for the whole time-out. A stream resets it when a part is recorded.
#[derive(Debug, Default)]
pub struct CallWait(Mutex<Waited>);

#[derive(Debug, Default)]
struct Waited {
    /// The number of requests that are being retried now.
    waiting: u32,
    /// When the first of them failed.
    since: Option<Instant>,
    /// The time waited before `since`.
    before: Duration,
}

/// The attempts of one request after the first one, which has failed.
struct Attempts<'a> {
    retry: &'a Retry,
    pause: Duration,
    /// No attempt begins later.
    deadline: Instant,
    waiting: WaitGuard,
    /// Whether an attempt was refused for a reason that only an operator can fix.
    is_refused: bool,
}

/// One request of a call, while it is retried.
struct WaitGuard(Option<Arc<CallWait>>);

/// The retry budget of one store: how many retries the process may make. It keeps the callers that wait during an outage
/// from making the outage worse.
#[derive(Debug)]
struct RetryBudget(Mutex<Allowance>);

#[derive(Debug)]
struct Allowance {
    retries: f64,
    at: Instant,
}

// === impl Retry ===

impl Retry {
    /// Retries each request for up to `total`.
    pub fn new(total: Duration) -> Self {
        Self {
            total,
            budget: RetryBudget::new(),
            store: None,
            refusals: Refusals::default(),
        }
    }

    /// As [`Retry::new`], for requests to the blob store of the storage `id`. If it refuses one for a reason that only an
    /// operator can fix, its credentials are renewed and the request is sent once more.
    pub fn of_store(store: Arc<dyn BlobStore>, id: String, total: Duration) -> Self {
        Self {
            store: Some((store, id)),
            ..Self::new(total)
        }
    }

    /// Repeats `operation` while it fails with a retryable error: with exponential backoff and full jitter, not before
    /// the delay that the error asks for, and within the retry budget. Stops when `total` has passed since the start of
    /// the first failed attempt. The time-out of the store bounds the first attempt. `operation` must be idempotent and
    /// may be cancelled.
    ///
    /// # Errors
    /// The last failure. If it is retryable, it contains the delay after which to retry.
    pub async fn run<T, F>(&self, operation: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let answer = self.attempt(operation).await;
        self.note(&answer);
        answer
    }

    async fn attempt<T, F>(&self, mut operation: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let begun = Instant::now();
        self.budget.allow(RETRIES_PER_CALL);
        let mut failed = match operation().await {
            Err(error) if error.is_retryable() => error,
            done => return done,
        };
        let mut attempts = Attempts::new(self, begun);
        loop {
            failed = attempts.pause(failed).await?;
            failed = match timeout_at(attempts.deadline, operation()).await {
                Ok(Err(error)) if error.is_retryable() => error,
                Ok(done) => {
                    self.budget.allow(RETRIES_PER_SUCCESS);
                    return done;
                }
                Err(_) => return Err(stopped(failed)),
            };
        }
    }

    /// As [`Retry::run`], for requests that may take longer than `total` and have time-outs of their own: an attempt is
    /// never cut. So `total` counts from the end of the first failed attempt, and no attempt begins after it.
    ///
    /// # Errors
    /// As [`Retry::run`].
    pub async fn run_whole<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.run_in_turns(|| {
            let attempt = attempt();
            async { (Duration::ZERO, attempt.await) }
        })
        .await
    }

    /// As [`Retry::run_whole`], for requests that wait for turns. `attempt` also returns for how long it has waited for its
    /// turn, which does not count.
    ///
    /// # Errors
    /// As [`Retry::run`].
    pub async fn run_in_turns<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = (Duration, Result<T>)>,
    {
        let answer = self.attempt_in_turns(attempt).await;
        self.note(&answer);
        answer
    }

    async fn attempt_in_turns<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = (Duration, Result<T>)>,
    {
        self.budget.allow(RETRIES_PER_CALL);
        let (_, first) = attempt().await;
        let mut failed = match first {
            Err(error) if error.is_retryable() => error,
            done => return done,
        };
        let mut attempts = Attempts::new(self, Instant::now());
        loop {
            attempts.pause(failed).await?;
            let (waited, result) = attempt().await;
            attempts.exclude(waited);
            failed = match result {
                Err(error) if error.is_retryable() => error,
                done => {
                    self.budget.allow(RETRIES_PER_SUCCESS);
                    return done;
                }
            };
        }
    }

    fn note<T>(&self, answer: &Result<T>) {
        if let Some((_, id)) = &self.store {
            self.refusals.note(id, answer);
        }
    }
}

impl Around for Arc<Retry> {
    async fn around<T, F>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        if MOVES_BYTES.contains(&name) {
            self.run_whole(call).await
        } else {
            self.run(call).await
        }
    }
}

// === impl Attempts ===

impl<'a> Attempts<'a> {
    /// The clock starts at `since`.
    fn new(retry: &'a Retry, since: Instant) -> Self {
        let (waiting, deadline) = WaitGuard::new(since, retry.total);
        Self {
            retry,
            pause: FIRST_PAUSE,
            deadline,
            waiting,
            is_refused: false,
        }
    }

    /// Waits until the next attempt may begin, and returns the failure of the last one again.
    ///
    /// # Errors
    /// That failure, if the next attempt would begin after the deadline.
    async fn pause(&mut self, failed: Error) -> Result<Error> {
        if failed.operator_code().is_some() {
            return self.renewed(failed);
        }
        let asked = failed.retry_delay().unwrap_or_default();
        let mut wait = asked.max(jittered(self.pause));
        loop {
            if wait >= self.deadline.saturating_duration_since(Instant::now()) {
                return Err(stopped(failed));
            }
            sleep(wait).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            if self.retry.budget.take() {
                tracing::debug!(error = %failed, cause = ?std::error::Error::source(&failed), "retry");
                return Ok(failed);
            }
            wait = jittered(self.pause);
        }
    }

    /// Renews the credentials, which may have been replaced, before the only further attempt of a refused request.
    ///
    /// # Errors
    /// The failure, if that attempt was refused, too.
    fn renewed(&mut self, failed: Error) -> Result<Error> {
        if std::mem::replace(&mut self.is_refused, true) {
            return Err(failed);
        }
        if let Some((store, _)) = &self.retry.store {
            store.renew_credentials();
        }
        Ok(failed)
    }

    /// Does not count a time that has just passed.
    fn exclude(&mut self, time: Duration) {
        self.deadline += time;
        self.waiting.exclude(time);
    }
}

/// The last failure of a request that is not tried again.
fn stopped(failed: Error) -> Error {
    let delay = failed.retry_delay().unwrap_or(LONGEST_PAUSE);
    failed.retry_after(delay)
}

/// A random fraction of `pause`, so that requests that failed at the same time are not retried at the same time.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random())
}

// === impl CallWait ===

impl CallWait {
    /// Gives the running call its full waiting time again, because it has made progress.
    pub fn reset() {
        let Some(wait) = call::current::<Self>() else {
            return;
        };
        let mut waited = wait.lock();
        waited.before = Duration::ZERO;
        waited.since = waited.since.map(|_| Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Waited> {
        // A std mutex: held for a few instructions, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl WaitGuard ===

impl WaitGuard {
    /// Starts to wait at `begun`. Returns also the deadline, if the call may wait for `total` overall.
    fn new(begun: Instant, total: Duration) -> (Self, Instant) {
        let Some(wait) = call::current::<CallWait>() else {
            return (Self(None), begun + total);
        };
        let deadline = {
            let mut waited = wait.lock();
            waited.waiting += 1;
            let since = *waited.since.get_or_insert(begun);
            since + total.saturating_sub(waited.before)
        };
        (Self(Some(wait)), deadline)
    }

    /// Does not count a time that has just passed.
    fn exclude(&self, time: Duration) {
        let Some(wait) = &self.0 else { return };
        let mut waited = wait.lock();
        waited.since = waited.since.map(|since| Instant::now().min(since + time));
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let Some(wait) = &self.0 else { return };
        let mut waited = wait.lock();
        waited.waiting -= 1;
        if waited.waiting == 0
            && let Some(since) = waited.since.take()
        {
            waited.before += since.elapsed();
        }
    }
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

    /// Takes one retry, if the budget has one left.
    fn take(&self) -> bool {
        self.change(-1.0)
    }

    /// Adds to the budget, or takes from it if it has enough. Returns whether it had enough.
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
    use crate::error::Kind;

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_causes_no_error() {
        let available_from = Instant::now() + Duration::from_secs(20);
        let retry = Retry::new(Duration::from_secs(30));
        let result = retry
            .run(|| async move {
                if Instant::now() < available_from {
                    Err(Error::state_unavailable("unreachable"))
                } else {
                    Ok(())
                }
            })
            .await;
        assert!(result.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_outage_is_an_error_with_a_retry_delay() {
        let begin = Instant::now();
        let retry = Retry::new(Duration::from_secs(30));
        let error = retry
            .run(|| async { Err::<(), _>(Error::state_unavailable("unreachable")) })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.retry_delay().is_some());
        let waited = begin.elapsed();
        assert!(
            waited > Duration::from_secs(25) && waited <= Duration::from_secs(30),
            "{waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_times_out_is_not_retried_longer_than_one_that_fails() {
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
    async fn a_permanent_failure_is_not_retried() {
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
    async fn a_refusal_for_the_operator_is_tried_once_more_at_once() {
        let (begin, calls) = (Instant::now(), Cell::new(0));
        let retry = Retry::new(Duration::from_secs(30));
        let refused = retry
            .run(|| async {
                calls.set(calls.get() + 1);
                Err::<(), _>(Error::for_operator("AccessDenied", "no"))
            })
            .await
            .unwrap_err();
        assert_eq!((calls.get(), begin.elapsed()), (2, Duration::ZERO));
        assert_eq!(refused.kind(), Kind::Unavailable);
        assert_eq!(refused.retry_delay(), Some(Duration::from_secs(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_not_retried_if_the_store_asks_for_more_time_than_is_left() {
        let retry = Retry::new(Duration::from_secs(30));
        let busy = || async {
            let error = Error::store_unavailable("busy");
            Err::<(), _>(error.retry_after(Duration::from_secs(u64::MAX)))
        };
        assert!(retry.run(busy).await.is_err());
    }

    /// A thousand calls wait for a store that is unavailable for 20 seconds.
    #[tokio::test(start_paused = true)]
    async fn the_retry_budget_limits_many_callers_and_lets_them_notice_the_end_of_an_outage() {
        let retry = Retry::new(Duration::from_secs(30));
        let available_from = Instant::now() + Duration::from_secs(20);
        let tries = Cell::new(0_u32);
        let calls = (0..1000).map(|_| {
            retry.run(|| async {
                if Instant::now() < available_from {
                    tries.set(tries.get() + 1);
                    Err(Error::store_unavailable("unreachable"))
                } else {
                    Ok(())
                }
            })
        });
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(Result::is_ok));
        // A tenth of the calls, the full budget, and 10 per second.
        let retries = tries.get() - 1000;
        assert!(retries <= 100 + 100 + 200, "{retries}");
        let delay = Instant::now() - available_from;
        assert!(delay < Duration::from_secs(9), "{delay:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_not_retried_before_the_delay_that_the_store_asks_for() {
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

    /// A request that fails for 20 seconds and then succeeds.
    async fn outage_of_20_seconds(retry: &Retry) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        let request = || async move {
            if Instant::now() < end {
                return Err(Error::store_unavailable("unreachable"));
            }
            Ok(())
        };
        retry.run(request).await
    }

    #[tokio::test(start_paused = true)]
    async fn all_requests_of_a_call_share_one_retry_time_out() {
        let retry = Retry::new(Duration::from_secs(30));
        let begun = Instant::now();
        let call = async {
            outage_of_20_seconds(&retry).await.unwrap();
            sleep(Duration::from_secs(60)).await;
            outage_of_20_seconds(&retry).await
        };
        let second = call::scope(Arc::new(CallWait::default()), call).await;
        assert!(second.is_err());
        let waited = begun.elapsed() - Duration::from_secs(60);
        assert!(waited <= Duration::from_secs(31), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_of_a_call_wait_at_the_same_time() {
        let retry = Retry::new(Duration::from_secs(30));
        let call = async {
            let both = (outage_of_20_seconds(&retry), outage_of_20_seconds(&retry));
            futures::future::join(both.0, both.1).await
        };
        let (first, second) = call::scope(Arc::new(CallWait::default()), call).await;
        assert!(first.is_ok() && second.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_whose_bytes_move_is_not_cut() {
        let retry = Retry::new(Duration::from_secs(30));
        let attempts = Cell::new(0);
        let put = retry.run_in_turns(|| async {
            attempts.set(attempts.get() + 1);
            sleep(Duration::from_secs(300)).await;
            let result = match attempts.get() {
                1 => Err(Error::store_unavailable("slow down")),
                _ => Ok(()),
            };
            (Duration::ZERO, result)
        });
        put.await.unwrap();
        assert_eq!(attempts.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_turn_does_not_count() {
        let retry = Retry::new(Duration::from_secs(30));
        let hour = Duration::from_secs(3600);
        let attempts = Cell::new(0);
        let put = retry.run_in_turns(|| async {
            attempts.set(attempts.get() + 1);
            sleep(hour).await;
            let result = match attempts.get() {
                ..4 => Err(Error::store_unavailable("slow down")),
                _ => Ok(()),
            };
            (hour, result)
        });
        let call = async {
            put.await.unwrap();
            outage_of_20_seconds(&retry).await
        };
        let after = call::scope(Arc::new(CallWait::default()), call).await;
        assert!(after.is_ok());
        assert_eq!(attempts.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn puts_that_fail_are_retried_for_the_retry_time_out() {
        let begun = Instant::now();
        let retry = Retry::new(Duration::from_secs(30));
        let put = retry.run_in_turns(|| async {
            sleep(Duration::from_secs(20)).await;
            (
                Duration::ZERO,
                Err::<(), _>(Error::store_unavailable("timed out")),
            )
        });
        assert!(put.await.is_err());
        // One attempt before the time-out begins, and one that begins shortly before it ends.
        assert!(
            begun.elapsed() <= Duration::from_secs(70),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_makes_progress_gets_the_full_retry_time_out_again() {
        let retry = Retry::new(Duration::from_secs(30));
        let call = async {
            outage_of_20_seconds(&retry).await.unwrap();
            CallWait::reset();
            outage_of_20_seconds(&retry).await
        };
        let second = call::scope(Arc::new(CallWait::default()), call).await;
        assert!(second.is_ok());
    }
}
