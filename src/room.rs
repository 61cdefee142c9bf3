//! Room: a bounded amount of something that clients take, such as calls, bytes or downloads.
//!
//! What a client that does nothing has taken, it keeps only until another one needs it: then the place whose client has done
//! nothing for the longest time is revoked.

mod body;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;
use upload_gateway_core::error::{Error, Kind, Reason};

pub(crate) use self::body::{ReceivedBody, SentBody};

/// When a refused call may be retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often a call that waits for room looks for a place to revoke.
const REVOKE_INTERVAL: Duration = Duration::from_millis(100);

/// How many times per limit the places are compared with it.
const CHECKS: u32 = 10;

/// What a room allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// What the room is for: `calls`, `downloads`, …
    pub(crate) what: &'static str,
    /// The key in the table `limits` that sets `total`, if there is one.
    pub(crate) limit: Option<&'static str>,
    /// How much there is.
    pub(crate) total: u64,
    /// How long a call waits for room.
    pub(crate) wait_limit: Duration,
    /// After how long without any progress of its client a place may be revoked for another one.
    pub(crate) yields_after: Duration,
    /// After how long without any progress of its client a place is revoked in any case.
    pub(crate) ends_after: Option<Duration>,
}

/// A bounded amount.
#[derive(Debug)]
pub(crate) struct Room {
    rules: Rules,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    free: u64,
    next: u64,
    places: HashMap<u64, Held>,
}

/// What one place holds.
#[derive(Debug)]
struct Held {
    amount: u64,
    /// Since when its client has done nothing. `None`: it waits for the gateway.
    stalled_since: Option<Instant>,
    revoked: CancellationToken,
}

/// The place of one call in a room. What it has taken returns when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    number: u64,
    revoked: CancellationToken,
}

// === impl Room ===

impl Room {
    /// A room with these rules. If places end, this must be called in a runtime.
    pub(crate) fn new(rules: Rules) -> Arc<Self> {
        let room = Arc::new(Self {
            rules,
            state: Mutex::new(State {
                free: rules.total,
                next: 0,
                places: HashMap::new(),
            }),
            freed: Notify::new(),
        });
        if let Some(limit) = rules.ends_after {
            tokio::spawn(end_stalled(Arc::downgrade(&room), limit));
        }
        room
    }

    /// A place that has taken nothing yet. Cancels `revoked` if it must end.
    pub(crate) fn enter(self: &Arc<Self>, revoked: CancellationToken) -> Place {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let held = Held {
            amount: 0,
            stalled_since: None,
            revoked: revoked.clone(),
        };
        state.places.insert(number, held);
        Place {
            room: Arc::clone(self),
            number,
            revoked,
        }
    }

    /// Revokes the place whose client has done nothing for the longest time, except those that are being revoked.
    fn revoke_one(&self, beside: u64) {
        let now = Instant::now();
        let state = self.lock();
        let others = state.places.iter().filter(|(number, held)| {
            **number != beside && held.amount > 0 && !held.revoked.is_cancelled()
        });
        let stalled = others.filter_map(|(_, held)| Some((held.stalled_since?, held)));
        let longest = stalled.min_by_key(|(since, _)| *since);
        if let Some((since, held)) = longest
            && now - since >= self.rules.yields_after
        {
            held.revoked.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A std mutex: held for one pass over the places, never across an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the places whose clients do nothing for `limit`, until the room is dropped.
async fn end_stalled(room: Weak<Room>, limit: Duration) {
    let mut checks = interval(limit / CHECKS);
    loop {
        checks.tick().await;
        let Some(room) = room.upgrade() else { return };
        let now = Instant::now();
        for held in room.lock().places.values() {
            if held.stalled_since.is_some_and(|since| now - since >= limit) {
                held.revoked.cancel();
            }
        }
    }
}

// === impl Place ===

impl Place {
    /// Takes `amount` more, if it is free.
    pub(crate) fn try_take(&self, amount: u64) -> bool {
        let mut state = self.room.lock();
        let is_free = state.free >= amount;
        if is_free {
            state.free -= amount;
            if let Some(held) = state.places.get_mut(&self.number) {
                held.amount += amount;
            }
        }
        is_free
    }

    /// Takes `amount` more, and waits for it. Places of clients that do nothing make room.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is no room in time.
    pub(crate) async fn take(&self, amount: u64) -> Result<(), Error> {
        let deadline = Instant::now() + self.room.rules.wait_limit;
        loop {
            let freed = self.room.freed.notified();
            if self.try_take(amount) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.room.rules.exceeded());
            }
            self.room.revoke_one(self.number);
            let next = deadline.min(Instant::now() + REVOKE_INTERVAL);
            // Tried again in both cases.
            let _ = timeout_at(next, freed).await;
        }
    }

    /// Records that the gateway waits for the client from now on.
    pub(crate) fn wait_for_client(&self) {
        self.set_stalled(Some(Instant::now()));
    }

    /// Records that the client waits for the gateway.
    pub(crate) fn wait_for_gateway(&self) {
        self.set_stalled(None);
    }

    /// Waits until the place must end.
    pub(crate) async fn revoked(&self) -> Error {
        self.revoked.cancelled().await;
        self.room.rules.exceeded()
    }

    fn set_stalled(&self, since: Option<Instant>) {
        if let Some(held) = self.room.lock().places.get_mut(&self.number) {
            held.stalled_since = since;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        if let Some(held) = state.places.remove(&self.number) {
            state.free += held.amount;
        }
        drop(state);
        self.room.freed.notify_waiters();
    }
}

// === impl Rules ===

impl Rules {
    /// The error of a call for which there is no room.
    fn exceeded(&self) -> Error {
        let Self { what, total, .. } = self;
        let message = match self.limit {
            Some(limit) => {
                format!("too many {what} at once (limits.{limit} is {total}); retry later")
            }
            None => format!("too many {what} at once (at most {total}); retry later"),
        };
        let error = Error::new(Kind::ResourceExhausted, Reason::Overloaded, message)
            .retry_after(RETRY_AFTER.mul_f64(rand::random_range(0.5..1.5)));
        match self.limit {
            Some(limit) => error.with("limit", limit).with(limit, total),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    const RULES: Rules = Rules {
        what: "things",
        limit: None,
        total: 10,
        wait_limit: Duration::from_secs(2),
        yields_after: Duration::from_secs(5),
        ends_after: None,
    };

    fn place(room: &Arc<Room>, amount: u64) -> Place {
        let place = room.enter(CancellationToken::new());
        assert!(place.try_take(amount));
        place
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_room_is_refused_after_its_wait_limit() {
        let room = Room::new(RULES);
        let held = place(&room, 10);
        let begun = Instant::now();
        let refused = room.enter(CancellationToken::new()).take(1).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.retry_delay().is_some());
        assert_eq!(begun.elapsed(), RULES.wait_limit);
        drop(held);
        assert_eq!(room.lock().free, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_gets_the_room_that_is_freed_while_it_waits() {
        let room = Room::new(RULES);
        let held = place(&room, 10);
        let waiting = room.enter(CancellationToken::new());
        let mut waits = std::pin::pin!(waiting.take(4));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(held);
        waits.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_place_of_the_client_that_did_nothing_for_longest_is_revoked() {
        let room = Room::new(RULES);
        let places: Vec<_> = (0..3).map(|_| place(&room, 3)).collect();
        places[1].wait_for_client();
        advance(Duration::from_secs(1)).await;
        places[0].wait_for_client();
        advance(Duration::from_secs(9)).await;
        let mut waits = {
            let room = Arc::clone(&room);
            Box::pin(async move { room.enter(CancellationToken::new()).take(2).await })
        };
        assert!(waits.as_mut().now_or_never().is_none());
        let revoked = |place: &Place| place.revoked().now_or_never().is_some();
        let all: Vec<_> = places.iter().map(revoked).collect();
        assert_eq!(all, [false, true, false]);
        drop(places);
        waits.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_makes_progress_keeps_its_place() {
        let room = Room::new(RULES);
        let held = place(&room, 10);
        held.wait_for_client();
        advance(Duration::from_secs(1)).await;
        let refused = room.enter(CancellationToken::new()).take(1).await;
        assert!(refused.is_err());
        held.wait_for_client();
        held.wait_for_gateway();
        advance(Duration::from_secs(100)).await;
        let refused = room.enter(CancellationToken::new()).take(1).await;
        assert!(refused.is_err());
        assert!(held.revoked().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_nothing_loses_its_place_after_the_limit() {
        let limit = Duration::from_secs(300);
        let room = Room::new(Rules {
            ends_after: Some(limit),
            ..RULES
        });
        let (held, begun) = (place(&room, 1), Instant::now());
        held.wait_for_client();
        held.revoked().await;
        assert!(begun.elapsed() >= limit && begun.elapsed() <= limit + limit / CHECKS);
    }
}
