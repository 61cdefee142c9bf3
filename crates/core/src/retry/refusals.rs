//! Refusals that only an operator can fix: rejected credentials, missing permissions, a missing bucket.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{Error, Result};

/// How often it is logged at most that requests to one store are retried.
const RETRY_WARNING: Duration = Duration::from_secs(60);

/// With which code a store refuses requests. Logged once for each change, not for each request.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Whether requests are refused, so that a good answer takes no lock.
    is_refusing: AtomicBool,
    codes: Mutex<Codes>,
    /// When it was last logged that requests are retried.
    warned_at: Mutex<Option<Instant>>,
}

/// The codes of the last answers. The check sends other requests than uploads do, which may need other permissions.
#[derive(Debug, Default)]
struct Codes {
    requests: Option<String>,
    check: Option<String>,
}

// === impl Refusals ===

impl Refusals {
    /// Notes the answer of the store `name` to a request.
    pub(super) fn note<T>(&self, name: &str, answer: &Result<T>) {
        match answer {
            Ok(_) if self.is_refusing.load(Ordering::Relaxed) => {
                self.change(name, None, |codes| codes.requests = None);
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(code) = error.operator_code() {
                    let code = Some(code.to_owned());
                    self.change(name, Some(error), |codes| codes.requests = code);
                }
            }
        }
    }

    /// Notes the result of a check of the store `name`. If it passes again, what it failed with is fixed for requests, too.
    /// A failure without a code changes nothing.
    pub(super) fn note_check(&self, name: &str, checked: &Result<()>) {
        let error = checked.as_ref().err();
        let code = error.and_then(Error::operator_code).map(str::to_owned);
        if error.is_some() && code.is_none() {
            return;
        }
        self.change(name, error, |codes| {
            if checked.is_ok() && codes.check.is_some() && codes.check == codes.requests {
                codes.requests = None;
            }
            codes.check = code;
        });
    }

    /// The code with which the store refuses requests or the check.
    pub(super) fn code(&self) -> Option<String> {
        self.lock().reported().map(str::to_owned)
    }

    /// Notes that a request to the store `name` is retried. Logged at most once a minute, because a clock that is wrong or a
    /// name that does not resolve must not go unnoticed while retries succeed now and then.
    pub(super) fn note_retry(&self, name: &str, failed: &Error) {
        let mut at = self
            .warned_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if at.is_some_and(|at| at.elapsed() < RETRY_WARNING) {
            return;
        }
        *at = Some(Instant::now());
        let cause = failed.causes();
        tracing::warn!(
            storage = name,
            cause,
            "requests to the store are retried: {failed}"
        );
    }

    /// Logs the code of the store `name` if it changes.
    fn change(&self, name: &str, error: Option<&Error>, change: impl FnOnce(&mut Codes)) {
        let mut codes = self.lock();
        let before = codes.reported().map(str::to_owned);
        change(&mut codes);
        let is_refusing = codes.requests.is_some();
        self.is_refusing.store(is_refusing, Ordering::Relaxed);
        let now = codes.reported();
        if now == before.as_deref() {
            return;
        }
        match now {
            Some(code) => {
                let cause = error.map(Error::causes);
                tracing::warn!(
                    storage = name,
                    code,
                    cause,
                    "the store refuses requests, and an operator must fix it: {code}"
                );
            }
            None => tracing::info!(storage = name, "the store accepts requests again"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Codes> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Codes ===

impl Codes {
    fn reported(&self) -> Option<&str> {
        self.requests.as_deref().or(self.check.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Result<()> {
        Err(Error::for_operator(code, "refused"))
    }

    #[test]
    fn the_code_is_that_of_the_last_refusal_until_a_good_answer() {
        let refusals = Refusals::default();
        for code in ["AccessDenied", "AccessDenied", "NoSuchBucket"] {
            refusals.note("media", &refused(code));
            assert_eq!(refusals.code().as_deref(), Some(code));
            assert!(refusals.is_refusing.load(Ordering::Relaxed));
        }
        refusals.note("media", &Err::<(), _>(Error::store_unavailable("no code")));
        assert_eq!(refusals.code().as_deref(), Some("NoSuchBucket"));
        refusals.note("media", &Ok(()));
        assert_eq!(refusals.code(), None);
        assert!(!refusals.is_refusing.load(Ordering::Relaxed));
    }

    #[test]
    fn a_check_that_passes_hides_no_refusal_of_requests() {
        let refusals = Refusals::default();
        refusals.note("media", &refused("AccessDenied"));
        refusals.note_check("media", &Ok(()));
        assert_eq!(refusals.code().as_deref(), Some("AccessDenied"));
    }

    #[test]
    fn a_check_that_passes_again_ends_the_same_refusal_of_requests() {
        let refusals = Refusals::default();
        refusals.note_check("media", &refused("NoSuchBucket"));
        refusals.note_check("media", &Err(Error::store_unavailable("no code")));
        assert_eq!(refusals.code().as_deref(), Some("NoSuchBucket"));
        refusals.note("media", &refused("NoSuchBucket"));
        refusals.note_check("media", &Ok(()));
        assert_eq!(refusals.code(), None);
        refusals.note_check("media", &refused("AccessDenied"));
        refusals.note("media", &Ok(()));
        assert_eq!(refusals.code().as_deref(), Some("AccessDenied"));
    }
}
