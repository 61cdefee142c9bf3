//! Credentials that expire: kept, and renewed before their end.

use std::{
    fmt::Debug,
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use upload_gateway_core::{
    error::{Error, Result},
    upload::Timestamp,
};

/// How long renewing may take while the old value is still valid: less than the time-out of a store's operation, which
/// includes it.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failure to renew a value that is still valid.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// A value that expires. All callers share it, and one of them at a time renews it.
#[derive(Debug)]
pub(super) struct Renewed<T> {
    /// How long before its end the value is renewed.
    early: Duration,
    held: Mutex<Option<Held<T>>>,
    forgotten_at: Mutex<Option<Instant>>,
    turn: tokio::sync::Mutex<()>,
}

/// A value and when it expires.
#[derive(Debug, Clone)]
pub(super) struct Expiring<T> {
    pub(super) value: T,
    pub(super) expires_at: Timestamp,
}

#[derive(Debug, Clone)]
struct Held<T> {
    expiring: Expiring<T>,
    renew_at: Timestamp,
}

// === impl Renewed ===

impl<T: Clone + Debug + Send> Renewed<T> {
    /// Holds no value yet; each is renewed `early` before it expires.
    pub(super) fn new(early: Duration) -> Self {
        Self {
            early,
            held: Mutex::default(),
            forgotten_at: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The held value, or a new one from `fetch`. While the held value is valid, one caller renews it, for at most
    /// [`RENEWAL_TIMEOUT`], the others do not wait, and a failure is only logged.
    ///
    /// # Errors
    /// The error of `fetch`, if there is no valid value.
    pub(super) async fn get(
        &self,
        now: Timestamp,
        fetch: impl Future<Output = Result<Expiring<T>>> + Send,
    ) -> Result<Expiring<T>> {
        let _turn = match self.held() {
            Some(held) if now < held.renew_at => return Ok(held.expiring),
            Some(held) if now < held.expiring.expires_at => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(held.expiring),
            },
            _ => self.turn.lock().await,
        };
        // The previous holder of the turn may have renewed it.
        let old = match self.held() {
            Some(held) if now < held.renew_at => return Ok(held.expiring),
            Some(held) if now < held.expiring.expires_at => Some(held.expiring),
            _ => None,
        };
        let expiring = match old {
            Some(old) => {
                let fetched = timeout(RENEWAL_TIMEOUT, fetch).await;
                fetched
                    .map_err(Error::store_unavailable)
                    .flatten()
                    .unwrap_or_else(|error| {
                        tracing::warn!(%error, "cannot renew the credentials; keep using the old ones, which are still valid");
                        old
                    })
            }
            None => fetch.await?,
        };
        self.hold(expiring.clone(), now);
        Ok(expiring)
    }

    /// Forgets the value, so that the next caller fetches a new one. Does nothing if that happened just before: many
    /// requests can fail at the same time.
    pub(super) fn forget(&self) {
        let mut at = self
            .forgotten_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if at.is_some_and(|at| at.elapsed() < RETRY_DELAY) {
            return;
        }
        *at = Some(Instant::now());
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// When the held value expires; `None` if it does not expire, or if no value is held.
    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        let held = self.held()?;
        Some(held.expiring.expires_at).filter(|at| *at != Timestamp::never())
    }

    fn held(&self) -> Option<Held<T>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    fn hold(&self, expiring: Expiring<T>, now: Timestamp) {
        let early = u64::try_from(self.early.as_millis()).unwrap_or(u64::MAX);
        let early = Timestamp(expiring.expires_at.0.saturating_sub(early));
        let renew_at = early.max(now.plus(RETRY_DELAY)).min(expiring.expires_at);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Held { expiring, renew_at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upload_gateway_core::error::Kind;

    const MINUTE: u64 = 60_000;

    async fn found(value: u8, expires_at: u64) -> Result<Expiring<u8>> {
        let expires_at = Timestamp(expires_at);
        Ok(Expiring { value, expires_at })
    }

    async fn failed() -> Result<Expiring<u8>> {
        Err(Error::store_unavailable("unreachable"))
    }

    async fn never() -> Result<Expiring<u8>> {
        panic!("the value is not fetched");
    }

    fn renewed() -> Renewed<u8> {
        Renewed::new(Duration::from_secs(60))
    }

    #[tokio::test]
    async fn a_value_is_fetched_once_and_again_before_it_expires() {
        let renewed = renewed();
        let at = |minute: u64| Timestamp(minute * MINUTE);
        let first = renewed.get(at(0), found(1, 5 * MINUTE)).await.unwrap();
        assert_eq!((first.value, first.expires_at), (1, at(5)));
        assert_eq!(renewed.get(at(3), never()).await.unwrap().value, 1);
        let second = renewed.get(at(4), found(2, 9 * MINUTE)).await.unwrap();
        assert_eq!(second.value, 2);
        assert_eq!(renewed.get(at(5), never()).await.unwrap().value, 2);
    }

    #[tokio::test]
    async fn the_end_of_the_held_value_is_known_if_it_has_one() {
        let renewed = renewed();
        assert_eq!(renewed.expires_at(), None);
        renewed.get(Timestamp(0), found(1, MINUTE)).await.unwrap();
        assert_eq!(renewed.expires_at(), Some(Timestamp(MINUTE)));
        let endless = Renewed::new(Duration::ZERO);
        let found = found(2, Timestamp::never().0);
        endless.get(Timestamp(0), found).await.unwrap();
        assert_eq!(endless.expires_at(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_value_is_fetched_again_but_not_for_each_failed_request() {
        let renewed = renewed();
        let now = Timestamp(0);
        renewed.get(now, found(1, 5 * MINUTE)).await.unwrap();
        renewed.forget();
        let second = renewed.get(now, found(2, 5 * MINUTE)).await.unwrap();
        assert_eq!(second.value, 2);
        renewed.forget();
        assert_eq!(renewed.get(now, never()).await.unwrap().value, 2);
        tokio::time::advance(RETRY_DELAY).await;
        renewed.forget();
        let third = renewed.get(now, found(3, 5 * MINUTE)).await.unwrap();
        assert_eq!(third.value, 3);
    }

    #[tokio::test]
    async fn a_failure_is_returned_only_after_the_old_value_has_expired() {
        let renewed = renewed();
        let error = renewed.get(Timestamp(0), failed()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        renewed.get(Timestamp(0), found(1, MINUTE)).await.unwrap();
        let last = Timestamp(MINUTE - 20_000);
        assert_eq!(renewed.get(last, failed()).await.unwrap().value, 1);
        let soon = last.plus(Duration::from_secs(9));
        assert_eq!(renewed.get(soon, never()).await.unwrap().value, 1);
        assert!(renewed.get(Timestamp(MINUTE), failed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_is_aborted_while_the_old_value_is_valid() {
        let renewed = renewed();
        renewed.get(Timestamp(0), found(1, MINUTE)).await.unwrap();
        let now = Timestamp(MINUTE / 2);
        let hangs = renewed.get(now, std::future::pending());
        let held = timeout(Duration::from_secs(10), hangs).await;
        assert_eq!(held.expect("the renewal is aborted").unwrap().value, 1);
        let soon = now.plus(Duration::from_secs(9));
        assert_eq!(renewed.get(soon, never()).await.unwrap().value, 1);
    }

    #[tokio::test]
    async fn one_renews_while_the_others_use_the_old_value() {
        let renewed = renewed();
        renewed.get(Timestamp(0), found(1, MINUTE)).await.unwrap();
        let now = Timestamp(MINUTE / 2);
        let (answer, answered) = tokio::sync::oneshot::channel();
        let slow = async {
            let _ = answered.await;
            found(2, 2 * MINUTE).await
        };
        let others = async {
            let other = renewed.get(now, never()).await;
            answer.send(()).unwrap();
            other
        };
        let (first, other) = tokio::join!(renewed.get(now, slow), others);
        assert_eq!((first.unwrap().value, other.unwrap().value), (2, 1));
    }
}
