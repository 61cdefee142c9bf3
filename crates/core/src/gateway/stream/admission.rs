//! Limits the number of concurrent streams, and shares them fairly among callers.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

use super::budget::overload_delay;
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::Owner,
};

/// The permits of running streams, by owner.
#[derive(Debug)]
pub(super) struct Admission {
    max: usize,
    /// How many of them one owner may have, if it has a tenant.
    per_owner: usize,
    running: watch::Sender<HashMap<Owner, usize>>,
}

/// The permit of one stream to run. Returned when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    owner: Owner,
}

// === impl Admission ===

impl Admission {
    /// Admits up to `max` concurrent streams, `per_owner` of each owner.
    pub(super) fn new(max: usize, per_owner: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            per_owner,
            running: watch::Sender::default(),
        })
    }

    /// Gives `owner` a permit for one more stream. The last quarter of the permits is reserved for owners that have
    /// less than an equal share, so that a new caller gets a permit whatever the others do. An owner without a tenant may have
    /// all permits: without authentication it is the only one.
    ///
    /// # Errors
    /// `ResourceExhausted` if no permit is available.
    pub(super) fn admit(self: &Arc<Self>, owner: &Owner) -> Result<Permit> {
        let admitted = self.running.send_if_modified(|running| {
            let has_room = self.has_room(running, owner);
            if has_room {
                *running.entry(owner.clone()).or_default() += 1;
            }
            has_room
        });
        if !admitted {
            return Err(self.exceeded(owner));
        }
        Ok(Permit {
            admission: Arc::clone(self),
            owner: owner.clone(),
        })
    }

    /// How many streams run.
    pub(super) fn running(&self) -> usize {
        self.running.borrow().values().sum()
    }

    /// Waits until no stream is running, including those whose callers have disconnected.
    pub(super) async fn all_ended(&self) {
        let mut running = self.running.subscribe();
        // Cannot fail: `self` has the sender.
        let _ = running.wait_for(HashMap::is_empty).await;
    }

    fn has_room(&self, running: &HashMap<Owner, usize>, owner: &Owner) -> bool {
        let taken: usize = running.values().sum();
        let held = running.get(owner).copied().unwrap_or_default();
        let others = running.len() - usize::from(held > 0);
        let (share, most) = if owner.tenant.is_empty() {
            (self.max, self.max)
        } else {
            (self.max / (others.max(1) + 1), self.per_owner)
        };
        let is_short = taken >= self.max - self.max / 4;
        taken < self.max && held < most && (!is_short || held < share)
    }

    fn exceeded(&self, owner: &Owner) -> Error {
        let held = self.running.borrow().get(owner).copied();
        let error = match !owner.tenant.is_empty() && held >= Some(self.per_owner) {
            true => {
                let most = self.per_owner;
                let message = format!(
                    "the caller has limits.per_owner.max_streams, {most}, streams; retry later"
                );
                Error::new(Kind::ResourceExhausted, Reason::Overloaded, message)
                    .with("limit", "per_owner.max_streams")
            }
            false => Error::new(
                Kind::ResourceExhausted,
                Reason::Overloaded,
                "the gateway has reached its limit of concurrent streams; retry later",
            ),
        };
        error.retry_after(overload_delay())
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.running.send_modify(|running| {
            if let Some(count) = running.get_mut(&self.owner) {
                *count -= 1;
                if *count == 0 {
                    running.remove(&self.owner);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(subject: &str) -> Owner {
        Owner {
            tenant: "acme".into(),
            subject: subject.into(),
        }
    }

    fn admit_all(admission: &Arc<Admission>, owner: &Owner) -> Vec<Permit> {
        std::iter::from_fn(|| admission.admit(owner).ok()).collect()
    }

    #[test]
    fn a_permit_is_returned_when_its_stream_ends() {
        let admission = Admission::new(2, 1);
        let mut permits = admit_all(&admission, &Owner::default());
        assert_eq!(permits.len(), 2);
        let error = admission.admit(&Owner::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.retry_delay().is_some());
        permits.pop();
        assert!(admission.admit(&Owner::default()).is_ok());
        drop(permits);
        assert!(admission.running.borrow().is_empty());
    }

    #[test]
    fn a_new_owner_gets_permits_whatever_the_others_have() {
        let admission = Admission::new(100, 100);
        let greedy = admit_all(&admission, &owner("greedy"));
        assert_eq!(greedy.len(), 75);
        let other = admit_all(&admission, &owner("other"));
        assert_eq!(other.len(), 25);
        // The permits that the greedy owner returns are available to the owner with less than its share.
        drop(greedy);
        let _greedy: Vec<_> = (0..70)
            .filter_map(|_| admission.admit(&owner("greedy")).ok())
            .collect();
        assert!(admission.admit(&owner("greedy")).is_err());
        assert!(admission.admit(&owner("other")).is_ok());
    }

    #[test]
    fn an_owner_at_its_limit_leaves_the_rest_to_others() {
        let admission = Admission::new(100, 10);
        let greedy = admit_all(&admission, &owner("greedy"));
        assert_eq!(greedy.len(), 10);
        let error = admission.admit(&owner("greedy")).unwrap_err();
        assert!(error.to_string().contains("limits.per_owner.max_streams"));
        assert_eq!(admit_all(&admission, &owner("other")).len(), 10);
    }
}
