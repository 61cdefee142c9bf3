//! How many streams run at once, and that no caller has them all.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

use super::{
    Caller, Gateway,
    budget::{come_back, overloaded},
    drain::draining,
};
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

/// The place of one stream; free again when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    owner: Owner,
}

// === impl Gateway ===

impl Gateway {
    /// Lets a stream of `caller`'s begin, before anything of it is read.
    ///
    /// # Errors
    /// `Unavailable` when the gateway drains; `ResourceExhausted` when there are too many, or no memory for those that run.
    pub(super) fn admit(&self, caller: &Caller) -> Result<Permit> {
        if self.is_draining() {
            return Err(draining());
        }
        if self.budget.is_short(&caller.owner) {
            return Err(overloaded(Kind::ResourceExhausted));
        }
        self.admission.admit(&caller.owner)
    }

    /// Waits until no stream runs, also of those whose callers have gone.
    pub async fn streams_ended(&self) {
        let mut running = self.admission.running.subscribe();
        // The sender is the gateway's.
        let _ = running.wait_for(HashMap::is_empty).await;
    }
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

    /// Gives `owner` a place for one more stream. The last quarter of the places is for owners that have less than their
    /// equal share, so that a newcomer finds room whatever the others do. Without authentication there is one owner only,
    /// who may have them all.
    ///
    /// # Errors
    /// `ResourceExhausted` when there is none.
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
        "the gateway runs as many streams as it may; come back later",
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
    fn a_place_is_free_again_when_its_stream_ends() {
        let admission = Admission::new(2);
        let mut places = admit_all(&admission, &Owner::default());
        assert_eq!(places.len(), 2);
        let error = admission.admit(&Owner::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.retry_delay().is_some());
        places.pop();
        assert!(admission.admit(&Owner::default()).is_ok());
        drop(places);
        assert!(admission.running.borrow().is_empty());
    }

    #[test]
    fn a_newcomer_finds_room_whatever_the_others_have_taken() {
        let admission = Admission::new(100);
        let greedy = admit_all(&admission, &owner("greedy"));
        assert_eq!(greedy.len(), 75);
        let other = admit_all(&admission, &owner("other"));
        assert_eq!(other.len(), 25);
        // What the greedy one gives back goes to the one with less than its share.
        drop(greedy);
        let _greedy: Vec<_> = (0..70)
            .filter_map(|_| admission.admit(&owner("greedy")).ok())
            .collect();
        assert!(admission.admit(&owner("greedy")).is_err());
        assert!(admission.admit(&owner("other")).is_ok());
    }
}
