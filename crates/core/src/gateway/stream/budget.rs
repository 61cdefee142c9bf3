//! The byte budget: how much of all files together may lie in memory.
//!
//! Streams draw bytes as they arrive, never a whole part ahead. Under pressure the part that has drawn most goes first, so
//! that parts become full one after the other instead of all being half full. So that they cannot wait for each other for
//! ever, a reserve of one maximal part is lent to one of them at a time: it can always be completed, and gives everything
//! back. Where that does not help, because parts fill too slowly, the slowest are recalled. A caller that holds more than
//! an equal share waits behind the others, and its parts are recalled before theirs.
//!
//! Full buffers are kept for the next parts, drawn as they are: fresh memory costs a page fault for each 4 KiB. They are let
//! go as soon as half-full parts need their bytes.

mod ledger;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use memmap2::MmapMut;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use self::ledger::{Grant, Idle, Ledger, RECALL_PAUSE, Waiter};
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{Owner, PART_SIZE},
};

/// How many buffers are kept at most, each of the usual part size.
const MOST_SPARE: usize = 16;

/// How often a part that waits has those recalled that hold more than their share: longer than a part takes to the store.
const SHARE_PAUSE: Duration = Duration::from_secs(1);

/// A number of bytes that all streams share.
#[derive(Debug)]
pub(super) struct Budget {
    ledger: Mutex<Ledger>,
    /// How long a draw waits before the stream is ended.
    wait_limit: Duration,
}

/// What one part has drawn; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    owner: Owner,
    from_free: u64,
    from_reserve: u64,
    holds_reserve: bool,
    begun: Instant,
}

/// A draw that waits. What is granted when nobody waits any more goes to its part all the same.
#[derive(Debug)]
struct Pending<'a> {
    reservation: &'a mut Reservation,
    bytes: u64,
    granted: oneshot::Receiver<Grant>,
}

// === impl Budget ===

impl Budget {
    /// A budget of `total` bytes, of which one part of `largest_part` bytes is the reserve.
    pub(super) fn new(total: u64, largest_part: u64, wait_limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::new(Ledger::new(total, largest_part.min(total))),
            wait_limit,
        })
    }

    /// Whether parts have waited for so long that `owner` should not begin one. Those do not count that wait because their
    /// callers hold more than their share, where `owner` does not.
    pub(super) fn is_short(&self, owner: &Owner) -> bool {
        self.lock().is_short(owner, self.wait_limit / 4)
    }

    /// Begins a part of `owner`'s, which has drawn nothing yet.
    pub(super) fn begin(self: &Arc<Self>, owner: &Owner) -> Reservation {
        self.lock().begin(owner);
        Reservation {
            budget: Arc::clone(self),
            owner: owner.clone(),
            from_free: 0,
            from_reserve: 0,
            holds_reserve: false,
            begun: Instant::now(),
        }
    }

    /// A buffer of `size` bytes that is kept, with what it has drawn: all of its bytes.
    pub(super) fn reuse(
        self: &Arc<Self>,
        owner: &Owner,
        size: usize,
    ) -> Option<(MmapMut, Reservation)> {
        if size as u64 != PART_SIZE {
            return None;
        }
        let memory = self.lock().spare.pop()?;
        let mut reservation = self.begin(owner);
        self.lock().hold(owner, PART_SIZE);
        reservation.from_free = PART_SIZE;
        Some((memory, reservation))
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A std mutex: held for a few instructions, never across an await.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Reservation ===

impl Reservation {
    /// Draws `bytes` more, waiting for others to give some back. A part that has nothing yet and `reuses` may get a buffer
    /// of the usual part size instead of its own, and has then drawn all its bytes.
    ///
    /// # Errors
    /// `ResourceExhausted` when that takes longer than the budget's wait_limit.
    pub(super) async fn reserve(&mut self, bytes: u64, reuses: bool) -> Result<Option<MmapMut>> {
        let granted = {
            let mut ledger = self.budget.lock();
            if self.holds_reserve && self.from_reserve + bytes <= ledger.reserve {
                ledger.hold(&self.owner, bytes);
                self.from_reserve += bytes;
                return Ok(None);
            }
            if ledger.waiting.is_empty() && ledger.free >= bytes {
                ledger.hold(&self.owner, bytes);
                ledger.free -= bytes;
                self.from_free += bytes;
                return Ok(None);
            }
            let (granted, grant) = oneshot::channel();
            ledger.waiting.push(Waiter {
                owner: self.owner.clone(),
                bytes,
                reserved: self.reserved(),
                reuses,
                since: Instant::now(),
                granted,
            });
            ledger.serve();
            grant
        };
        let mut pending = Pending {
            reservation: self,
            bytes,
            granted,
        };
        match pending.wait().await {
            Some(grant) => Ok(pending.reservation.credit(grant, bytes)),
            None => Err(overloaded(Kind::ResourceExhausted)),
        }
    }

    /// Ends when this part, `received` bytes of which are there, is recalled for being slow: drop it then.
    pub(super) async fn recalled(&self, received: u64) {
        let (recall, recalled) = oneshot::channel();
        let idle = Idle {
            owner: self.owner.clone(),
            received,
            reserved: self.reserved(),
            begun: self.begun,
            recall,
        };
        self.budget.lock().wait_for_sender(idle);
        if recalled.await.is_err() {
            std::future::pending().await
        }
    }

    /// How many bytes it has drawn so far.
    pub(super) fn reserved(&self) -> u64 {
        self.from_free + self.from_reserve
    }

    /// Keeps the memory it was drawn for, if another part can have it as it is.
    pub(super) fn keep(&mut self, memory: MmapMut) {
        let mut ledger = self.budget.lock();
        let whole = self.from_free == PART_SIZE && memory.len() as u64 == PART_SIZE;
        if whole && ledger.spare.len() < MOST_SPARE {
            self.from_free = 0;
            ledger.give_back(&self.owner, PART_SIZE);
            ledger.spare.push(memory);
            ledger.serve();
        }
    }

    /// Notes what was granted of the `bytes` it waited for.
    fn credit(&mut self, grant: Grant, bytes: u64) -> Option<MmapMut> {
        match grant {
            Grant::FromFree => self.from_free += bytes,
            Grant::FromReserve => {
                self.holds_reserve = true;
                self.from_reserve += bytes;
            }
            Grant::Buffer(memory) => {
                self.from_free += PART_SIZE;
                return Some(memory);
            }
        }
        None
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = self.budget.lock();
        ledger.free += self.from_free;
        ledger.reserve_lent &= !self.holds_reserve;
        ledger.give_back(&self.owner, self.reserved());
        ledger.end(&self.owner);
        ledger.serve();
    }
}

// === impl Pending ===

impl Pending<'_> {
    /// What was granted; None when the budget's wait_limit is over.
    async fn wait(&mut self) -> Option<Grant> {
        let (begun, wait_limit) = (Instant::now(), self.reservation.budget.wait_limit);
        let mut pause = SHARE_PAUSE;
        loop {
            let left = wait_limit.saturating_sub(begun.elapsed());
            if let Ok(grant) = timeout(pause.min(left), &mut self.granted).await {
                return grant.ok();
            }
            let waited = begun.elapsed();
            if waited >= wait_limit {
                return None;
            }
            let mut ledger = self.reservation.budget.lock();
            // Half of the time for parts that end by themselves, half for those that are recalled.
            if waited < wait_limit / 2 {
                ledger.recall_beyond_share(self.bytes, &self.reservation.owner);
                pause = SHARE_PAUSE.min(wait_limit / 2 - waited);
            } else {
                ledger.recall(self.bytes);
                pause = RECALL_PAUSE;
            }
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Closed first: what is granted in this very moment must not be lost.
        self.granted.close();
        if let Ok(grant) = self.granted.try_recv()
            && let Some(memory) = self.reservation.credit(grant, self.bytes)
        {
            self.reservation.keep(memory);
        }
    }
}

/// There is no memory to spare: `ResourceExhausted` for who asks for more, `Unavailable` for who is recalled.
pub(super) fn overloaded(kind: Kind) -> Error {
    Error::new(
        kind,
        Reason::Overloaded,
        "the gateway has no memory to spare; resume later",
    )
    .retry_after(come_back())
}

/// When to come back to a gateway that has too much to do: in about 5 seconds, and not all at once.
pub(super) fn come_back() -> Duration {
    Duration::from_secs(5).mul_f64(rand::random_range(0.5..1.5))
}

#[cfg(test)]
mod tests;
