//! Refusals that only an operator can fix: rejected credentials, missing permissions, a missing bucket.

use std::{
    sync::{
        Mutex, PoisonError,
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
    /// Whether there is a code, so that a good answer takes no lock.
    is_refusing: AtomicBool,
    code: Mutex<Option<String>>,
    /// When it was last logged that requests are retried.
    warned_at: Mutex<Option<Instant>>,
}

// === impl Refusals ===

impl Refusals {
    /// Notes the answer of the store `name`.
    pub(super) fn note<T>(&self, name: &str, answer: &Result<T>) {
        match answer {
            Ok(_) if self.is_refusing.load(Ordering::Relaxed) => {
                if self.replace(None) {
                    tracing::warn!(store = name, "the store accepts requests again");
                }
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(code) = error.operator_code()
                    && self.replace(Some(code))
                {
                    let cause = error.causes();
                    tracing::warn!(
                        store = name,
                        code,
                        cause,
                        "the store refuses requests, and an operator must fix it: {code}"
                    );
                }
            }
        }
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
            store = name,
            cause,
            "requests to the store are retried: {failed}"
        );
    }

    /// Returns whether the code has changed.
    fn replace(&self, code: Option<&str>) -> bool {
        let mut known = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let is_changed = known.as_deref() != code;
        *known = code.map(str::to_owned);
        self.is_refusing.store(code.is_some(), Ordering::Relaxed);
        is_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_noted() {
        let refusals = Refusals::default();
        assert!(refusals.replace(Some("AccessDenied")));
        assert!(!refusals.replace(Some("AccessDenied")));
        assert!(refusals.replace(Some("NoSuchBucket")));
        refusals.note("media", &Ok(()));
        assert!(!refusals.is_refusing.load(Ordering::Relaxed));
        assert!(refusals.replace(Some("NoSuchBucket")));
    }
}
