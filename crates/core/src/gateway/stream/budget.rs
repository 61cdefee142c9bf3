//! The memory budget: how many file bytes the process may keep in memory.
//!
//! A part reserves memory for bytes when they arrive, never for the whole part in advance. Under pressure, the part
//! with the largest reservation is served first, so that parts become full one after the other instead of all staying
//! half full. To rule out a deadlock of half-full parts, a reserve of one maximal part is lent to one part at a time:
//! that part can always be completed, and then returns everything. If parts fill too slowly for that, the slowest parts
//! are recalled. A caller that has more than an equal share is served after the others, and its parts are recalled
//! before theirs.
//!
//! Used buffers are kept for later parts, with their reservation, because fresh memory costs a page fault for each 4
//! KiB. They are freed as soon as half-full parts need their bytes.

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
    gateway::refusal::budget_too_small,
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
    /// How long a reservation waits before the stream is ended.
    wait_limit: Duration,
}

/// The memory that one part has reserved. Returned to the budget when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    owner: Owner,
    from_free: u64,
    from_reserve: u64,
    holds_reserve: bool,
    begun: Instant,
}

/// A reservation that waits. Bytes that are granted while it is being dropped are still credited to its part.
#[derive(Debug)]
struct Pending<'a> {
    reservation: &'a mut Reservation,
    bytes: u64,
    granted: oneshot::Receiver<Grant>,
}

// === impl Budget ===

impl Budget {
    /// A budget of `total` bytes, which includes the reserve: one part of `largest_part` bytes.
    pub(super) fn new(total: u64, largest_part: u64, wait_limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::new(Ledger::new(total, largest_part.min(total))),
            total,
            wait_limit,
        })
    }

    /// Whether parts have waited for so long that `owner` should not start another one. If `owner` is within its share,
    /// parts of callers beyond their share do not count.
    pub(super) fn is_short(&self, owner: &Owner) -> bool {
        self.lock().is_short(owner, self.wait_limit / 4)
    }

    /// Starts a part of `owner`, with nothing reserved.
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

    /// A kept buffer of `size` bytes, with a reservation for all of them.
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
    /// Reserves `bytes` more, and waits until they are available. If nothing is reserved yet and `reuses` is set, the
    /// result can be a kept buffer of the default part size, which replaces the part's own; all of its bytes are then
    /// reserved.
    ///
    /// # Errors
    /// `ResourceExhausted` if that takes longer than the wait limit of the budget. `FailedPrecondition` if the part is larger
    /// than the whole budget: it would wait in vain, and others behind it.
    pub(super) async fn reserve(&mut self, bytes: u64, reuses: bool) -> Result<Option<MmapMut>> {
        let wanted = self.reserved().saturating_add(bytes);
        if wanted > self.budget.total {
            return Err(budget_too_small(wanted, self.budget.total));
        }
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

    /// Returns when this part, of which `received` bytes have arrived, is recalled because it is slow. The caller must
    /// then drop the part.
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

    /// How many bytes are reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.from_free + self.from_reserve
    }

    /// Keeps `memory` for another part, if it has the default part size and is fully reserved.
    pub(super) fn keep(&mut self, memory: MmapMut) {
        let mut ledger = self.budget.lock();
        let whole = self.from_free == PART_SIZE && memory.len() as u64 == PART_SIZE;
        if whole && ledger.spare.len() < MAX_SPARE {
            self.from_free = 0;
            ledger.release(&self.owner, PART_SIZE);
            ledger.spare.push(memory);
            ledger.serve();
        }
    }

    /// Credits what was granted for the `bytes` that were requested.
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
        ledger.release(&self.owner, self.reserved());
        ledger.end(&self.owner);
        ledger.serve();
    }
}

// === impl Pending ===

impl Pending<'_> {
    /// The grant, or `None` after the wait limit of the budget.
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
            // The first half of the time is for parts that end by themselves, the second half for recalls.
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
        // Closed first, so that bytes that are granted at this moment are not lost.
        self.granted.close();
        if let Ok(grant) = self.granted.try_recv()
            && let Some(memory) = self.reservation.credit(grant, self.bytes)
        {
            self.reservation.keep(memory);
        }
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
mod tests;
