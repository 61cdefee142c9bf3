//! Room: a bounded amount of something that clients take, such as calls, bytes or downloads.
//!
//! What a client that does nothing has taken, it keeps only until another one needs it: then the place whose client has done
//! nothing for the longest time is revoked. If all of them wait for more, none can finish: then the oldest one is revoked.

mod body;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{AcquireError, Semaphore, SemaphorePermit},
    time::{Instant, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;
use upload_gateway_core::{error::Error, upload::Owner};

pub(crate) use self::{
    body::{ReceivedBody, SentBody},
    rules::Rules,
};

/// How many calls wait for room at a time: the bytes that such a call has received are in memory, too.
const MAX_WAITING: u32 = 256;

/// How many of them are of one owner, if it has a tenant, so that an owner with many calls leaves others a turn.
const MAX_WAITING_OF_OWNER: u32 = MAX_WAITING / 2;

/// How often a call that waits for room looks for a place to revoke.
const REVOKE_INTERVAL: Duration = Duration::from_millis(100);

/// After how long without any movement the places that wait for more are stuck.
const STUCK: Duration = Duration::from_millis(200);

/// How many times per limit the places are compared with it.
const CHECKS: u32 = 10;

/// A bounded amount.
#[derive(Debug)]
pub(crate) struct Room {
    rules: Rules,
    /// What is free for all. The call that has waited longest gets it first.
    free: Semaphore,
    /// What is free of the reserve.
    reserve: Semaphore,
    places: Mutex<Places>,
}

/// The places in a room.
#[derive(Debug, Default)]
struct Places {
    next: u64,
    held: HashMap<u64, Held>,
    /// What each owner has.
    owners: HashMap<Owner, Share>,
    /// The places that wait for room.
    waiting: BTreeSet<u64>,
    /// When something was last taken or revoked.
    moved_at: Option<Instant>,
    /// Those that can be revoked, by the time since when their clients have done nothing.
    stalled: BTreeSet<(Instant, u64)>,
}

/// What one owner has in a room.
#[derive(Debug, Default)]
struct Share {
    places: u32,
    /// How many of them wait for room.
    waiting: u32,
}

/// What one place holds.
#[derive(Debug)]
struct Held {
    amount: u32,
    /// How much of it is of the reserve.
    of_reserve: u32,
    /// Since when its client has done nothing. `None`: it waits for the gateway.
    stalled_since: Option<Instant>,
    is_revoked: bool,
    /// Cancelled when the place is revoked.
    end: CancellationToken,
    /// Whose place it is, if owners have shares.
    owner: Option<Owner>,
}

/// A place that waits for room, until this is dropped.
struct Waiting<'a>(&'a Place);

/// The place of one call in a room. What it has taken returns when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    number: u64,
    /// Whether it may take of the reserve.
    is_small: bool,
    revoked: CancellationToken,
}

/// What a place has taken, until it keeps it.
struct Taken<'a> {
    permit: SemaphorePermit<'a>,
    is_of_reserve: bool,
}

// === impl Room ===

impl Room {
    /// A room with these rules. If places end, this must be called in a runtime.
    pub(crate) fn new(rules: Rules) -> Arc<Self> {
        let room = Arc::new(Self {
            rules,
            free: Semaphore::new((rules.total - rules.reserve) as usize),
            reserve: Semaphore::new(rules.reserve as usize),
            places: Mutex::default(),
        });
        if let Some(limit) = rules.ends_after {
            tokio::spawn(end_stalled(Arc::downgrade(&room), limit));
        }
        room
    }

    /// A place that has taken nothing yet. Cancels `revoked` if it must end.
    pub(crate) fn enter(self: &Arc<Self>, revoked: CancellationToken) -> Place {
        let number = self.lock().add(revoked.clone(), None);
        self.place(number, true, revoked)
    }

    /// As [`Room::enter`], for a call of `owner`.
    ///
    /// # Errors
    /// `ResourceExhausted` if the owner has its share of the places.
    pub(crate) fn enter_for(
        self: &Arc<Self>,
        owner: &Owner,
        revoked: CancellationToken,
    ) -> Result<Place, Error> {
        if owner.tenant.is_empty() {
            return Ok(self.enter(revoked));
        }
        let mut places = self.lock();
        let has = places.owners.get(owner).map_or(0, |share| share.places);
        if has >= self.rules.per_owner {
            return Err(self.rules.share_exceeded());
        }
        let number = places.add(revoked.clone(), Some(owner.clone()));
        drop(places);
        Ok(self.place(number, has < self.rules.reserve, revoked))
    }

    fn place(self: &Arc<Self>, number: u64, is_small: bool, revoked: CancellationToken) -> Place {
        Place {
            room: Arc::clone(self),
            number,
            is_small,
            revoked,
        }
    }

    /// Revokes the place whose client has done nothing for the longest time, if that is long enough, or one of those that wait
    /// for each other.
    fn revoke_one(&self) {
        let mut places = self.lock();
        if !places.revoke_first(self.rules.yields_after) {
            places.revoke_stuck();
        }
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
    fn add(&mut self, end: CancellationToken, owner: Option<Owner>) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(owner) = &owner {
            self.owners.entry(owner.clone()).or_default().places += 1;
        }
        let held = Held {
            amount: 0,
            of_reserve: 0,
            stalled_since: None,
            is_revoked: false,
            end,
            owner,
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
            self.revoke(number);
        }
        is_due
    }

    /// If nothing moves because all places that hold something wait for more, revokes the oldest: it has had the most time.
    fn revoke_stuck(&mut self) {
        let has_moved = self.moved_at.is_none_or(|at| at.elapsed() < STUCK);
        let mut holders = self.held.iter().filter(|(_, held)| held.amount > 0);
        if has_moved || !holders.all(|(number, _)| self.waiting.contains(number)) {
            return;
        }
        let holds = |number: &&u64| self.held.get(number).is_some_and(|held| held.amount > 0);
        let mut holders = self.waiting.iter().filter(holds);
        let (oldest, another) = (holders.next().copied(), holders.next());
        if let Some(oldest) = oldest.filter(|_| another.is_some()) {
            self.revoke(oldest);
        }
    }

    fn revoke(&mut self, number: u64) {
        self.moved_at = Some(Instant::now());
        self.change(number, |held| {
            held.is_revoked = true;
            held.end.cancel();
        });
    }

    /// Removes a place, and returns what it held.
    fn remove(&mut self, number: u64) -> Option<Held> {
        self.change(number, |held| held.stalled_since = None);
        let mut held = self.held.remove(&number)?;
        if let Some(owner) = held.owner.take()
            && let Entry::Occupied(mut share) = self.owners.entry(owner)
        {
            share.get_mut().places -= 1;
            if share.get().places == 0 {
                share.remove();
            }
        }
        Some(held)
    }

    /// Notes that a place waits for room. Whether it may.
    fn begin_waiting(&mut self, number: u64) -> bool {
        if self.waiting.len() >= MAX_WAITING as usize {
            return false;
        }
        if let Some(share) = self.share_of(number) {
            if share.waiting >= MAX_WAITING_OF_OWNER {
                return false;
            }
            share.waiting += 1;
        }
        self.waiting.insert(number);
        true
    }

    fn end_waiting(&mut self, number: u64) {
        if let Some(share) = self.share_of(number) {
            share.waiting -= 1;
        }
        self.waiting.remove(&number);
    }

    /// What the owner of a place has, if owners have shares.
    fn share_of(&mut self, number: u64) -> Option<&mut Share> {
        let owner = self.held.get(&number)?.owner.as_ref()?;
        self.owners.get_mut(owner)
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
        let Room { free, reserve, .. } = &*self.room;
        let taken = match free.try_acquire_many(amount).map(Taken::free) {
            Err(_) if self.is_small => reserve.try_acquire_many(amount).map(Taken::of_reserve),
            taken => taken,
        };
        taken.map(|taken| self.keep(taken)).is_ok()
    }

    /// Takes `amount` more, and waits for it. Places of clients that do nothing make room.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is no room in time, if the place is revoked, or if too many calls wait, of all owners or of
    /// this one.
    pub(crate) async fn take(&self, amount: u32) -> Result<(), Error> {
        if self.try_take(amount) {
            return Ok(());
        }
        let rules = &self.room.rules;
        let _waiting = Waiting::begin(self).ok_or_else(|| rules.exceeded())?;
        let deadline = Instant::now() + rules.wait_limit;
        let mut taking = pin!(self.wait_for(amount));
        loop {
            self.room.revoke_one();
            if self.revoked.is_cancelled() {
                return Err(rules.exceeded());
            }
            let now = Instant::now();
            let next = deadline.min(now + REVOKE_INTERVAL);
            match timeout_at(next, taking.as_mut()).await {
                Ok(Ok(taken)) => {
                    self.keep(taken);
                    return Ok(());
                }
                Err(_) if next < deadline => {}
                _ => return Err(rules.exceeded()),
            }
        }
    }

    /// Waits until that much is free for this place.
    async fn wait_for(&self, amount: u32) -> Result<Taken<'_>, AcquireError> {
        let Room { free, reserve, .. } = &*self.room;
        tokio::select! {
            biased;
            permit = free.acquire_many(amount) => permit.map(Taken::free),
            permit = reserve.acquire_many(amount), if self.is_small => permit.map(Taken::of_reserve),
        }
    }

    /// Keeps what was taken until this is dropped.
    fn keep(&self, taken: Taken<'_>) {
        let amount = u32::try_from(taken.permit.num_permits()).unwrap_or(u32::MAX);
        taken.permit.forget();
        let mut places = self.room.lock();
        places.moved_at = Some(Instant::now());
        places.change(self.number, |held| {
            held.amount += amount;
            if taken.is_of_reserve {
                held.of_reserve += amount;
            }
        });
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
        let Some(held) = self.room.lock().remove(self.number) else {
            return;
        };
        let Room { free, reserve, .. } = &*self.room;
        free.add_permits((held.amount - held.of_reserve) as usize);
        reserve.add_permits(held.of_reserve as usize);
    }
}

// === impl Taken ===

impl<'a> Taken<'a> {
    fn free(permit: SemaphorePermit<'a>) -> Self {
        Self {
            permit,
            is_of_reserve: false,
        }
    }

    fn of_reserve(permit: SemaphorePermit<'a>) -> Self {
        Self {
            permit,
            is_of_reserve: true,
        }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    /// `None`: too many places wait.
    fn begin(place: &'a Place) -> Option<Self> {
        let may_wait = place.room.lock().begin_waiting(place.number);
        may_wait.then(|| Self(place))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.room.lock().end_waiting(self.0.number);
    }
}
