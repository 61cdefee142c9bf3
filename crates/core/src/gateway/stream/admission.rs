//! The number of streams that run at once, shared fairly by callers.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

use super::budget::come_back;
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::Owner,
};

/// The streams that run, by owner.
#[derive(Debug)]
pub(super) struct Admission {
    most: usize,
    running: watch::Sender<HashMap<Owner, usize>>,
}

/// The right of one stream to run; returned when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    owner: Owner,
}

// === impl Admission ===

impl Admission {
    /// At most `most` streams at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            running: watch::Sender::default(),
        })
    }

    /// Gives `owner` the permit for one more stream. The last quarter of the permits is for owners that have less than their
    /// equal share, so that a new caller gets one whatever the others do. Without authentication there is only one owner,
    /// which may have them all.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is none.
    pub(super) fn admit(self: &Arc<Self>, owner: &Owner) -> Result<Permit> {
        let admitted = self.running.send_if_modified(|running| {
            let has_room = self.has_room(running, owner);
            if has_room {
                *running.entry(owner.clone()).or_default() += 1;
            }
            has_room
        });
        if !admitted {
            return Err(too_many_streams());
        }
        Ok(Permit {
            admission: Arc::clone(self),
            owner: owner.clone(),
        })
    }

    /// Waits until no stream runs, including those whose callers have disconnected.
    pub(super) async fn all_ended(&self) {
        let mut running = self.running.subscribe();
        // Cannot fail: `self` has the sender.
        let _ = running.wait_for(HashMap::is_empty).await;
    }

    fn has_room(&self, running: &HashMap<Owner, usize>, owner: &Owner) -> bool {
        let taken: usize = running.values().sum();
        let held = running.get(owner).copied().unwrap_or_default();
        let others = running.len() - usize::from(held > 0);
        let share = if *owner == Owner::default() {
            self.most
        } else {
            self.most / (others.max(1) + 1)
        };
        let is_short = taken >= self.most - self.most / 4;
        taken < self.most && (!is_short || held < share)
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

fn too_many_streams() -> Error {
    Error::new(
        Kind::ResourceExhausted,
        Reason::Overloaded,
        "the gateway runs as many streams as it may; retry later",
    )
    .retry_after(come_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(subject: &str) -> Owner {
        Owner {
            tenant: String::new(),
            subject: subject.into(),
        }
    }

    fn admit_all(admission: &Arc<Admission>, owner: &Owner) -> Vec<Permit> {
        std::iter::from_fn(|| admission.admit(owner).ok()).collect()
    }

    #[test]
    fn a_permit_is_free_again_when_its_stream_ends() {
        let admission = Admission::new(2);
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
        let admission = Admission::new(100);
        let greedy = admit_all(&admission, &owner("greedy"));
        assert_eq!(greedy.len(), 75);
        let other = admit_all(&admission, &owner("other"));
        assert_eq!(other.len(), 25);
        // What the greedy owner returns goes to the one with less than its share.
        drop(greedy);
        let _greedy: Vec<_> = (0..70)
            .filter_map(|_| admission.admit(&owner("greedy")).ok())
            .collect();
        assert!(admission.admit(&owner("greedy")).is_err());
        assert!(admission.admit(&owner("other")).is_ok());
    }
}
