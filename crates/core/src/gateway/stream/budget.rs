//! The memory budget: how many file bytes the process may keep in memory.
//!
//! A stream reserves memory for the bytes of a message when they arrive, and hands it over to the part that takes them;
//! never for a whole message or part in advance. Under pressure, the stream with the most bytes in its part is served
//! first, so that parts become full one after the other instead of all staying half full; of others, the one with the
//! shortest message. To rule out a deadlock of half-full parts, a reserve of one maximal part and one message is lent to
//! one stream at a time: that stream can always complete its part, and then returns everything. Streams whose senders
//! stall are recalled as soon as others wait; if that is not enough, the slowest ones are. A caller that has more than
//! an equal share is served after the others, and its parts are recalled before theirs.
//!
//! Used buffers are kept for later parts, with their reservation, because fresh memory costs a page fault for each 4
//! KiB. They are freed as soon as half-full parts need their bytes.

mod amount;
mod ledger;
mod messages;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use memmap2::MmapMut;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

pub use self::messages::MessageMemory;
use self::{
    amount::Amount,
    ledger::{Grant, Holder, Ledger, RECALL_PAUSE, Recall, Waiter},
};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{refusal::budget_too_small, storage::UNCOUNTED},
    upload::{Owner, PART_SIZE},
};

/// The largest number of kept buffers. Each has the default part size.
const MAX_SPARE: usize = 16;

/// How often a waiting part causes a recall of parts of callers with more than their share: longer than it takes to put
/// a part.
const SHARE_PAUSE: Duration = Duration::from_secs(1);

/// The bytes that all streams share.
#[derive(Debug)]
pub(super) struct Budget {
    ledger: Mutex<Ledger>,
    total: u64,
    /// The number of the next stream or part.
    next: AtomicU64,
    /// How long a reservation waits before the stream is ended.
    wait_limit: Duration,
}

/// The memory that one part has reserved. Returned to the budget when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    owner: Owner,
    holder: Holder,
    amount: Amount,
    /// Whether the ledger counts it among the large parts.
    is_large: bool,
    begun: Instant,
}

/// What a part or a message needs.
#[derive(Debug, Clone, Copy)]
struct Wish {
    bytes: u64,
    /// The length of the message in bytes, as far as it is known.
    length: u64,
    /// How many bytes are reserved so far.
    reserved: u64,
    /// Whether a kept buffer will do.
    reuses: bool,
}

/// A request for bytes that waits. Bytes that are granted while it is being dropped are returned.
#[derive(Debug)]
struct Pending<'a> {
    budget: &'a Budget,
    owner: &'a Owner,
    holder: Holder,
    bytes: u64,
    granted: oneshot::Receiver<Grant>,
}

// === impl Budget ===

impl Budget {
    /// A budget of `total` bytes, which includes the reserve: one part and one message of these sizes.
    pub(super) fn new(
        total: u64,
        largest_part: u64,
        largest_message: u64,
        wait_limit: Duration,
    ) -> Arc<Self> {
        let reserve = largest_part.saturating_add(largest_message).min(total);
        Arc::new(Self {
            ledger: Mutex::new(Ledger::new(total, reserve, largest_message)),
            total,
            next: AtomicU64::new(0),
            wait_limit,
        })
    }

    /// The bytes that are reserved, and how many requests wait for bytes.
    pub(super) fn load(&self) -> (u64, u64) {
        let ledger = self.lock();
        let unused = ledger.free + ledger.reserve + ledger.spare.len() as u64 * PART_SIZE;
        (
            self.total.saturating_sub(unused),
            ledger.waiting.len() as u64,
        )
    }

    /// Whether any part or message waits for bytes.
    pub(super) fn is_short_now(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Whether parts have waited for so long that `owner` should not start another one. If `owner` is within its share,
    /// parts of callers beyond their share do not count.
    pub(super) fn is_short(&self, owner: &Owner) -> bool {
        self.lock().is_short(owner, self.wait_limit / 4)
    }

    /// Starts a part of a stream of `owner`, with nothing reserved.
    pub(super) fn begin(self: &Arc<Self>, owner: &Owner, stream: u64) -> Reservation {
        self.lock().begin(owner);
        Reservation {
            budget: Arc::clone(self),
            owner: owner.clone(),
            holder: Holder {
                stream,
                part: Some(self.number()),
            },
            amount: Amount::default(),
            is_large: false,
            begun: Instant::now(),
        }
    }

    /// A kept buffer of `size` bytes, with a reservation for all of them.
    pub(super) fn reuse(
        self: &Arc<Self>,
        owner: &Owner,
        stream: u64,
        size: usize,
    ) -> Option<(MmapMut, Reservation)> {
        if size as u64 != PART_SIZE {
            return None;
        }
        let memory = self.lock().spare.pop()?;
        let mut reservation = self.begin(owner, stream);
        self.lock().hold(owner, PART_SIZE);
        reservation.amount.from_free = PART_SIZE;
        reservation.count_large();
        Some((memory, reservation))
    }

    /// Gets bytes for `holder`, and waits until they are available.
    async fn get(&self, owner: &Owner, holder: Holder, wish: Wish) -> Result<Grant> {
        let Wish { bytes, .. } = wish;
        let wanted = wish.reserved.saturating_add(bytes);
        if wanted > self.total {
            return Err(budget_too_small(wanted, self.total));
        }
        let granted = {
            let mut ledger = self.lock();
            if let Some(grant) = ledger.take(owner, holder, (bytes, wish.length)) {
                return Ok(grant);
            }
            let (granted, grant) = oneshot::channel();
            let part = match holder.part {
                Some(_) => wish.reserved,
                // It does not grow while its stream waits.
                None => ledger.part(holder.stream),
            };
            ledger.waiting.push(Waiter {
                owner: owner.clone(),
                holder,
                bytes,
                part,
                length: wish.length,
                reuses: wish.reuses,
                since: Instant::now(),
                granted,
            });
            ledger.serve();
            grant
        };
        let mut pending = Pending {
            budget: self,
            owner,
            holder,
            bytes,
            granted,
        };
        let granted = pending.wait().await;
        granted.ok_or_else(|| overloaded(Kind::ResourceExhausted))
    }

    /// Keeps `memory`, whose bytes are reserved, for another part. `false` if there are enough kept buffers.
    fn keep(&self, owner: &Owner, memory: MmapMut) -> bool {
        let mut ledger = self.lock();
        let has_room = ledger.spare.len() < MAX_SPARE;
        if has_room {
            ledger.release(owner, PART_SIZE);
            ledger.spare.push(memory);
            ledger.serve();
        }
        has_room
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A std mutex: held for a few instructions, never across an await.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Reservation ===

impl Reservation {
    /// Reserves `bytes` more: those that the messages of its stream hold, then others, for which it waits. If nothing is
    /// reserved yet and `reuses` is set, the result can be a kept buffer of the default part size, which replaces the part's
    /// own; all of its bytes are then reserved.
    ///
    /// # Errors
    /// `ResourceExhausted` if that takes longer than the wait limit of the budget. `FailedPrecondition` if the part is larger
    /// than the whole budget: it would wait in vain, and others behind it.
    pub(super) async fn reserve(&mut self, bytes: u64, reuses: bool) -> Result<Option<MmapMut>> {
        let moved = self.budget.lock().hand_over(self.holder, bytes);
        self.amount.add(moved);
        let bytes = bytes - moved.total();
        if bytes == 0 {
            self.count_large();
            return Ok(None);
        }
        let wish = Wish {
            bytes,
            length: 0,
            reserved: self.reserved(),
            reuses: reuses && self.reserved() == 0,
        };
        let got = self.budget.get(&self.owner, self.holder, wish);
        let kept = match got.await? {
            Grant::FromFree => {
                self.amount.from_free += bytes;
                None
            }
            Grant::FromReserve => {
                self.amount.from_reserve += bytes;
                None
            }
            Grant::Buffer(memory) => {
                self.amount.from_free += PART_SIZE;
                Some(memory)
            }
        };
        self.count_large();
        Ok(kept)
    }

    /// Counts the part among the large ones once it has more than the bytes that every stream may have.
    fn count_large(&mut self) {
        if !self.is_large && self.reserved() > UNCOUNTED {
            self.is_large = true;
            self.budget.lock().begin_large();
        }
    }

    /// How many bytes are reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.amount.total()
    }

    /// Records how many bytes of the part have been received, for the order in which streams are served. 0 once it is
    /// complete.
    pub(super) fn fill(&self, received: u64) {
        self.budget.lock().fill(self.holder.stream, received);
    }

    /// When the part began.
    fn begun(&self) -> Instant {
        self.begun
    }

    /// Keeps `memory` for another part, if it has the default part size and is fully reserved.
    pub(super) fn keep(&mut self, memory: MmapMut) {
        let whole = self.amount.from_free == PART_SIZE && memory.len() as u64 == PART_SIZE;
        if whole && self.budget.keep(&self.owner, memory) {
            self.amount.from_free = 0;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = self.budget.lock();
        ledger.give_back(&self.owner, self.holder, self.amount);
        if self.is_large {
            ledger.end_large();
        }
        ledger.end(&self.owner);
    }
}

// === impl Pending ===

impl Pending<'_> {
    /// The grant, or `None` after the wait limit of the budget.
    async fn wait(&mut self) -> Option<Grant> {
        let (begun, wait_limit) = (Instant::now(), self.budget.wait_limit);
        let mut share_at = SHARE_PAUSE;
        loop {
            let left = wait_limit.saturating_sub(begun.elapsed());
            if let Ok(grant) = timeout(RECALL_PAUSE.min(left), &mut self.granted).await {
                return grant.ok();
            }
            let waited = begun.elapsed();
            if waited >= wait_limit {
                return None;
            }
            let mut ledger = self.budget.lock();
            let mut recall = |which| ledger.recall(which, self.bytes, self.owner);
            recall(Recall::Stalled);
            // The first half of the time is for parts that end by themselves, the second half for recalls.
            if waited >= wait_limit / 2 {
                recall(Recall::Any);
            } else if waited >= share_at {
                recall(Recall::BeyondShare);
                share_at += SHARE_PAUSE;
            }
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Closed first, so that bytes that are granted at this moment are not lost.
        self.granted.close();
        let mut amount = Amount::default();
        match self.granted.try_recv() {
            Ok(Grant::FromFree) => amount.from_free = self.bytes,
            Ok(Grant::FromReserve) => amount.from_reserve = self.bytes,
            Ok(Grant::Buffer(memory)) => {
                if self.budget.keep(self.owner, memory) {
                    return;
                }
                amount.from_free = PART_SIZE;
            }
            Err(_) => return,
        }
        let mut ledger = self.budget.lock();
        ledger.give_back(self.owner, self.holder, amount);
    }
}

/// The gateway has no free memory: `ResourceExhausted` for a stream that needs more, `Unavailable` for one that is
/// recalled.
pub(super) fn overloaded(kind: Kind) -> Error {
    Error::new(
        kind,
        Reason::Overloaded,
        "the gateway has no free memory; resume later",
    )
    .retry_after(overload_delay())
}

/// The retry delay of an overloaded gateway: about 5 seconds, spread out so that not all clients return at the same
/// time.
pub(super) fn overload_delay() -> Duration {
    Duration::from_secs(5).mul_f64(rand::random_range(0.5..1.5))
}

#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod tests;
