//! Retries while a blob store or the state store is unavailable. This is the only retry policy: adapters and SDKs do
//! not retry.
//!
//! [`Retry`] decorates the ports. If a call has a [`CallWait`] in its [scope](crate::call), the configured time-out
//! applies to the whole call, however many requests it makes.

mod budget;
mod refusals;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use self::{budget::RetryBudget, refusals::Refusals};
use crate::{
    blobs::BlobStore,
    call,
    decorate::Around,
    error::{Error, Result},
    meter::{Done, Meter, Unmeasured},
};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The first pause. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The number of retries that each request adds to the retry budget.
const RETRIES_PER_CALL: f64 = 0.1;

/// The number of retries that each successful retry adds to the retry budget. The store is available again, so the
/// number of retries may double each time.
const RETRIES_PER_SUCCESS: f64 = 2.0;

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
    meter: Arc<dyn Meter>,
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

// === impl Retry ===

impl Retry {
    /// Retries each request for up to `total`.
    pub fn new(total: Duration) -> Self {
        Self {
            total,
            budget: RetryBudget::new(),
            store: None,
            refusals: Refusals::default(),
            meter: Arc::new(Unmeasured),
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

    /// Notes each retry with `meter`.
    #[must_use]
    pub fn measured(self, meter: Arc<dyn Meter>) -> Self {
        Self { meter, ..self }
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

    /// Notes the result of a check of the store.
    pub fn note_check(&self, checked: &Result<()>) {
        if let Some((_, id)) = &self.store {
            self.refusals.note_check(id, checked);
        }
    }

    /// The error code with which the store refuses requests, if only an operator can fix the cause.
    pub fn refusal(&self) -> Option<String> {
        self.refusals.code()
    }

    fn note<T>(&self, answer: &Result<T>) {
        if let Some((_, id)) = &self.store {
            self.refusals.note(id, answer);
        }
    }

    fn note_retry(&self, failed: &Error) {
        let storage = self.store.as_ref().map(|(_, id)| id.as_str());
        self.meter.note(Done::Retried { storage, failed });
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
                tracing::debug!(error = %failed, cause = failed.causes(), "retry");
                if let Some((_, id)) = &self.retry.store {
                    self.retry.refusals.note_retry(id, &failed);
                }
                self.retry.note_retry(&failed);
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
        self.retry.note_retry(&failed);
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

#[cfg(test)]
mod tests;
