//! How often stores are asked for lost records: a rate for the process, and a memory of what was not found.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{Owner, UploadId},
};

/// How long a call waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How long it is remembered that a record was not found.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Lets a number of searches per second through.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    /// When the next search could begin at an even rate. Up to a second's worth may begin earlier.
    next: Mutex<Instant>,
}

/// The uploads that were not found lately. [`Rate`] bounds how many they can be.
#[derive(Debug, Default)]
pub(super) struct Absent(Mutex<Remembered>);

/// The tenant of the caller, and the id.
type Asked = (String, UploadId);

#[derive(Debug, Default)]
struct Remembered {
    known: HashSet<Asked>,
    /// In the order in which they are forgotten.
    until: VecDeque<(Instant, Asked)>,
}

// === impl Rate ===

impl Rate {
    /// Lets `per_second` searches per second through, at least one.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for the turn of a search.
    ///
    /// # Errors
    /// `Unavailable` if that would take longer than two seconds.
    pub(super) async fn turn(&self) -> Result<()> {
        let wait = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let begins = (*next).max(now);
            let ahead = begins.duration_since(now);
            let wait = (ahead + self.interval).saturating_sub(Duration::from_secs(1));
            if wait > MAX_WAIT {
                let message = "many records that the state store does not have are searched for in the stores; retry";
                let error = Error::new(Kind::Unavailable, Reason::StateUnavailable, message);
                return Err(error.retry_after(wait));
            }
            *next = begins + self.interval;
            wait
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

// === impl Absent ===

impl Absent {
    /// Whether the search of a caller of this tenant found nothing lately.
    pub(super) fn has(&self, owner: &Owner, id: &UploadId) -> bool {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.forget(Instant::now());
        remembered
            .known
            .contains(&(owner.tenant.clone(), id.clone()))
    }

    /// Remembers that a search found nothing.
    pub(super) fn remember(&self, owner: &Owner, id: &UploadId) {
        let asked = (owner.tenant.clone(), id.clone());
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.known.insert(asked.clone()) {
            remembered
                .until
                .push_back((Instant::now() + REMEMBERED, asked));
        }
    }
}

// === impl Remembered ===

impl Remembered {
    fn forget(&mut self, now: Instant) {
        while let Some((_, asked)) = self.until.pop_front_if(|(until, _)| *until <= now) {
            self.known.remove(&asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn searches_beyond_the_rate_wait_and_then_fail() {
        let rate = Rate::new(10);
        let began = Instant::now();
        for _ in 0..10 {
            rate.turn().await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "a second's worth at once");
        rate.turn().await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
        let waiting = (0..100).map(|_| rate.turn());
        let waited = futures::future::join_all(waiting).await;
        let refused: Vec<_> = waited.into_iter().filter_map(Result::err).collect();
        assert!((75..85).contains(&refused.len()), "{}", refused.len());
        assert_eq!(refused[0].kind(), Kind::Unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_found_is_remembered_for_a_minute_for_its_tenant() {
        let absent = Absent::default();
        let owner = |tenant: &str| Owner {
            tenant: tenant.into(),
            ..Owner::default()
        };
        let id = UploadId::generate(None);
        absent.remember(&owner("a"), &id);
        absent.remember(&owner("a"), &id);
        assert!(absent.has(&owner("a"), &id));
        assert!(!absent.has(&owner("b"), &id));
        tokio::time::advance(REMEMBERED).await;
        assert!(!absent.has(&owner("a"), &id));
    }
}
