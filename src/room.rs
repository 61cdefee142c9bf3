//! Room: a bounded amount of something that clients take, such as calls, bytes or downloads.
//!
//! What a client that does nothing has taken, it keeps only until another one needs it: then the place whose client has done
//! nothing for the longest time is revoked.

mod body;

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;
use upload_gateway_core::error::{Error, Kind, Reason};

pub(crate) use self::body::{ReceivedBody, SentBody};

/// When a refused call may be retried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How many calls wait for room at a time.
const MAX_WAITING: usize = 256;

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
    pub(crate) total: u32,
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
    /// What is free. The call that has waited longest gets it first.
    free: Semaphore,
    /// For calls that wait: the bytes that such a call has received are in memory, too.
    waiting: Semaphore,
    places: Mutex<Places>,
}

/// The places in a room.
#[derive(Debug, Default)]
struct Places {
    next: u64,
    held: HashMap<u64, Held>,
    /// Those that can be revoked, by the time since when their clients have done nothing.
    stalled: BTreeSet<(Instant, u64)>,
}

/// What one place holds.
#[derive(Debug)]
struct Held {
    amount: u32,
    /// Since when its client has done nothing. `None`: it waits for the gateway.
    stalled_since: Option<Instant>,
    is_revoked: bool,
    /// Cancelled when the place is revoked.
    end: CancellationToken,
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
            free: Semaphore::new(rules.total as usize),
            waiting: Semaphore::new(MAX_WAITING),
            places: Mutex::default(),
        });
        if let Some(limit) = rules.ends_after {
            tokio::spawn(end_stalled(Arc::downgrade(&room), limit));
        }
        room
    }

    /// A place that has taken nothing yet. Cancels `revoked` if it must end.
    pub(crate) fn enter(self: &Arc<Self>, revoked: CancellationToken) -> Place {
        let number = self.lock().add(revoked.clone());
        Place {
            room: Arc::clone(self),
            number,
            revoked,
        }
    }

    /// Revokes the place whose client has done nothing for the longest time, if that is long enough.
    fn revoke_one(&self) {
        self.lock().revoke_first(self.rules.yields_after);
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // A std mutex: held for a few instructions, never across an await.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the places whose clients do nothing for `limit`, until the room is dropped.
async fn end_stalled(room: Weak<Room>, limit: Duration) {
    let mut checks = interval(limit / CHECKS);
    loop {
        checks.tick().await;
        let Some(room) = room.upgrade() else { return };
        let mut places = room.lock();
        while places.revoke_first(limit) {}
    }
}

// === impl Places ===

impl Places {
    /// Adds a place that holds nothing.
    fn add(&mut self, end: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        let held = Held {
            amount: 0,
            stalled_since: None,
            is_revoked: false,
            end,
        };
        self.held.insert(number, held);
        number
    }

    /// Changes a place.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Held)) {
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        let before = held.revocable_since();
        change(held);
        let after = held.revocable_since();
        if before != after {
            before.map(|since| self.stalled.remove(&(since, number)));
            after.map(|since| self.stalled.insert((since, number)));
        }
    }

    /// Revokes the first place whose client has done nothing for that long. Whether there was one.
    fn revoke_first(&mut self, limit: Duration) -> bool {
        let Some((since, number)) = self.stalled.first().copied() else {
            return false;
        };
        let is_due = since.elapsed() >= limit;
        if is_due {
            self.change(number, |held| {
                held.is_revoked = true;
                held.end.cancel();
            });
        }
        is_due
    }

    /// Removes a place, and returns what it held.
    fn remove(&mut self, number: u64) -> u32 {
        self.change(number, |held| held.stalled_since = None);
        self.held.remove(&number).map_or(0, |held| held.amount)
    }
}

// === impl Held ===

impl Held {
    /// Since when the place can be revoked for another one. `None`: not now, or it is revoked already.
    fn revocable_since(&self) -> Option<Instant> {
        self.stalled_since
            .filter(|_| self.amount > 0 && !self.is_revoked)
    }
}

// === impl Place ===

impl Place {
    /// Takes `amount` more, if it is free.
    pub(crate) fn try_take(&self, amount: u32) -> bool {
        let taken = self.room.free.try_acquire_many(amount);
        taken.map(|permit| self.keep(permit)).is_ok()
    }

    /// Takes `amount` more, and waits for it. Places of clients that do nothing make room.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is no room in time, or too many calls wait.
    pub(crate) async fn take(&self, amount: u32) -> Result<(), Error> {
        if self.try_take(amount) {
            return Ok(());
        }
        let Room {
            rules,
            free,
            waiting,
            ..
        } = &*self.room;
        let Ok(_waiting) = waiting.try_acquire() else {
            return Err(rules.exceeded());
        };
        let deadline = Instant::now() + rules.wait_limit;
        let mut taking = pin!(free.acquire_many(amount));
        loop {
            self.room.revoke_one();
            let now = Instant::now();
            let next = deadline.min(now + REVOKE_INTERVAL);
            match timeout_at(next, taking.as_mut()).await {
                Ok(Ok(permit)) => {
                    self.keep(permit);
                    return Ok(());
                }
                Err(_) if next < deadline => {}
                _ => return Err(rules.exceeded()),
            }
        }
    }

    /// Keeps what was taken until this is dropped.
    fn keep(&self, permit: SemaphorePermit<'_>) {
        let amount = u32::try_from(permit.num_permits()).unwrap_or(u32::MAX);
        permit.forget();
        self.room
            .lock()
            .change(self.number, |held| held.amount += amount);
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
        self.room
            .lock()
            .change(self.number, |held| held.stalled_since = since);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let amount = self.room.lock().remove(self.number);
        self.room.free.add_permits(amount as usize);
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
    use futures::{FutureExt, StreamExt};
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

    fn place(room: &Arc<Room>, amount: u32) -> Place {
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
        assert_eq!(room.free.available_permits(), 10);
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
    async fn freed_room_goes_to_the_call_that_has_waited_longest() {
        let room = Room::new(RULES);
        let held: Vec<_> = (0..2).map(|_| place(&room, 5)).collect();
        let first = room.enter(CancellationToken::new());
        let mut first = std::pin::pin!(first.take(6));
        assert!(first.as_mut().now_or_never().is_none());
        let [one, other] = held.try_into().unwrap();
        drop(one);
        let second = room.enter(CancellationToken::new());
        assert!(!second.try_take(1));
        drop(other);
        first.await.unwrap();
        assert!(second.try_take(4));
    }

    #[tokio::test(start_paused = true)]
    async fn only_some_calls_wait() {
        let room = Room::new(RULES);
        let _held = place(&room, 10);
        let place = || room.enter(CancellationToken::new());
        let places: Vec<_> = (0..=MAX_WAITING).map(|_| place()).collect();
        let takes = places.iter().map(|place| place.take(1));
        let begun = Instant::now();
        let mut waiting: futures::stream::FuturesUnordered<_> = takes.collect();
        assert!(waiting.next().await.unwrap().is_err());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        waiting.next().await.unwrap().unwrap_err();
        assert_eq!(begun.elapsed(), RULES.wait_limit);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_ends_otherwise_makes_room_for_others() {
        let room = Room::new(RULES);
        let end = CancellationToken::new();
        let ending = room.enter(end.clone());
        assert!(ending.try_take(5));
        ending.wait_for_client();
        end.cancel();
        drop(ending);
        let stalled = place(&room, 10);
        stalled.wait_for_client();
        advance(RULES.yields_after).await;
        let other = room.enter(CancellationToken::new());
        assert!(other.take(1).now_or_never().is_none());
        assert!(stalled.revoked().now_or_never().is_some());
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
