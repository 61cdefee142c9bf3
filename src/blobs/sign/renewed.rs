//! Credentials that expire: kept, and fetched anew in time.

use std::{
    fmt::Debug,
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{error::Result, upload::Timestamp};

/// How long nobody tries again to renew what is still valid.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// A value that expires. All signers share it, and one of them renews it.
#[derive(Debug)]
pub(in crate::blobs) struct Renewed<T> {
    /// How long before its end it is renewed.
    early: Duration,
    held: Mutex<Option<Held<T>>>,
    turn: tokio::sync::Mutex<()>,
}

/// A value and its end.
#[derive(Debug, Clone)]
pub(in crate::blobs) struct Expiring<T> {
    pub(in crate::blobs) value: T,
    pub(in crate::blobs) expires_at: Timestamp,
}

#[derive(Debug, Clone)]
struct Held<T> {
    expiring: Expiring<T>,
    renew_at: Timestamp,
}

// === impl Renewed ===

impl<T: Clone + Debug + Send> Renewed<T> {
    /// Nothing yet.
    pub(in crate::blobs) fn new(early: Duration) -> Self {
        Self {
            early,
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The value, if need be from `fetch`. While the old one lasts, nobody waits for the one who renews it, and a failure
    /// to do so is only logged.
    ///
    /// # Errors
    /// What `fetch` fails with, when there is no valid value.
    pub(in crate::blobs) async fn get(
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
        // Whoever had the turn before may have renewed it.
        let old = match self.held() {
            Some(held) if now < held.renew_at => return Ok(held.expiring),
            Some(held) if now < held.expiring.expires_at => Some(held.expiring),
            _ => None,
        };
        let expiring = match (fetch.await, old) {
            (Ok(new), _) => new,
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "cannot renew credentials, use the old ones");
                old
            }
            (Err(error), None) => return Err(error),
        };
        self.hold(expiring.clone(), now);
        Ok(expiring)
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
