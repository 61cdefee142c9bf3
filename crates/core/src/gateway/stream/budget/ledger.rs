//! Who has drawn what, who waits, and who goes first.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use memmap2::MmapMut;
use tokio::{sync::oneshot, time::Instant};

use crate::upload::{Owner, PART_SIZE};

/// The time between two recalls: a part that is recalled gives its bytes back well within it, and may be enough.
pub(super) const RECALL_PAUSE: Duration = Duration::from_millis(100);

/// The budget's books.
#[derive(Debug)]
pub(super) struct Ledger {
    total: u64,
    pub(super) free: u64,
    pub(super) reserve: u64,
    pub(super) reserve_lent: bool,
    pub(super) waiting: Vec<Waiter>,
    /// Drawn, but nobody's.
    pub(super) spare: Vec<MmapMut>,
    /// Parts that wait for their senders.
    idle: Vec<Idle>,
    last_recall: Option<Instant>,
    /// The callers that have parts.
    holdings: HashMap<Owner, Holding>,
}

/// What one caller has.
#[derive(Debug, Default)]
struct Holding {
    parts: usize,
    bytes: u64,
}

/// A part that waits for bytes.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) owner: Owner,
    pub(super) bytes: u64,
    /// What the part has drawn so far.
    pub(super) reserved: u64,
    /// Whether the part has nothing yet and would as well go into a whole buffer.
    pub(super) reuses: bool,
    pub(super) since: Instant,
    pub(super) granted: oneshot::Sender<Grant>,
}

/// A part that waits for its sender.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) owner: Owner,
    pub(super) received: u64,
    pub(super) reserved: u64,
    pub(super) begun: Instant,
    pub(super) recall: oneshot::Sender<()>,
}

/// What a part gets that waited.
#[derive(Debug)]
pub(super) enum Grant {
    FromFree,
    FromReserve,
    /// A buffer and all its bytes.
    Buffer(MmapMut),
}

// === impl Ledger ===

impl Ledger {
    /// Of `total` bytes, `reserve` of which are the reserve.
    pub(super) fn new(total: u64, reserve: u64) -> Self {
        Self {
            total,
            free: total - reserve,
            reserve,
            reserve_lent: false,
            waiting: Vec::new(),
            spare: Vec::new(),
            idle: Vec::new(),
            last_recall: None,
            holdings: HashMap::new(),
        }
    }

    /// Notes a part of `owner`'s.
    pub(super) fn begin(&mut self, owner: &Owner) {
        match self.holdings.get_mut(owner) {
            Some(holding) => holding.parts += 1,
            None => {
                let holding = Holding { parts: 1, bytes: 0 };
                self.holdings.insert(owner.clone(), holding);
            }
        }
    }

    /// Forgets a part of `owner`'s, which has given everything back.
    pub(super) fn end(&mut self, owner: &Owner) {
        if let Some(holding) = self.holdings.get_mut(owner) {
            holding.parts -= 1;
            if holding.parts == 0 {
                self.holdings.remove(owner);
            }
        }
    }

    /// Notes that a part of `owner`'s has drawn `bytes`.
    pub(super) fn hold(&mut self, owner: &Owner, bytes: u64) {
        if let Some(holding) = self.holdings.get_mut(owner) {
            holding.bytes += bytes;
        }
    }

    /// Notes that a part of `owner`'s has `bytes` less.
    pub(super) fn give_back(&mut self, owner: &Owner, bytes: u64) {
        if let Some(holding) = self.holdings.get_mut(owner) {
            holding.bytes -= bytes;
        }
    }

    /// Whether parts have waited for `long` that `owner` should wait behind.
    pub(super) fn is_short(&self, owner: &Owner, long: Duration) -> bool {
        let is_beyond = self.is_beyond_share(owner);
        let mut waiting = self.waiting.iter();
        waiting.any(|waiter| {
            waiter.since.elapsed() > long && (is_beyond || !self.is_beyond_share(&waiter.owner))
        })
    }

    /// Grants what can be granted, to the part that has drawn most, of equal ones to the first that came, and first of all
    /// to callers within their share: an idle buffer, the free bytes and those of idle buffers, or else the reserve.
    pub(super) fn serve(&mut self) {
        self.waiting.retain(|waiter| !waiter.granted.is_closed());
        loop {
            let first_of_equals = self.waiting.iter().enumerate().rev();
            let first = first_of_equals
                .max_by_key(|(_, waiter)| (!self.is_beyond_share(&waiter.owner), waiter.reserved));
            let Some((index, first)) = first else {
                return;
            };
            let bytes = first.bytes;
            if first.reuses
                && let Some(spare) = self.spare.pop()
            {
                self.grant(index, Grant::Buffer(spare));
                continue;
            }
            while self.free < bytes
                && let Some(spare) = self.spare.pop()
            {
                self.free += spare.len() as u64;
            }
            if self.free >= bytes {
                self.grant(index, Grant::FromFree);
            } else if !self.reserve_lent {
                self.grant(index, Grant::FromReserve);
            } else {
                return;
            }
        }
    }

    pub(super) fn wait_for_sender(&mut self, idle: Idle) {
        self.idle.retain(|idle| !idle.recall.is_closed());
        self.idle.push(idle);
    }

    /// Recalls parts of callers beyond their share, for one that is within it.
    pub(super) fn recall_beyond_share(&mut self, bytes: u64, owner: &Owner) {
        if self.is_beyond_share(owner) {
            return;
        }
        let idle = self.idle.iter();
        let beyond =
            idle.filter(|idle| !idle.recall.is_closed() && self.is_beyond_share(&idle.owner));
        let reserved: u64 = beyond.map(|idle| idle.reserved).sum();
        if reserved > 0 {
            self.recall(bytes.min(reserved));
        }
    }

    /// Recalls the slowest parts, first those of callers beyond their share, so many that they give `bytes` back, unless
    /// that was just done for somebody else.
    pub(super) fn recall(&mut self, bytes: u64) {
        let now = Instant::now();
        if self
            .last_recall
            .is_some_and(|last| now - last < RECALL_PAUSE)
        {
            return;
        }
        self.last_recall = Some(now);
        let mut idle = std::mem::take(&mut self.idle);
        idle.retain(|idle| !idle.recall.is_closed());
        // The first to be recalled is the last one here.
        idle.sort_by_cached_key(|idle| {
            // All at one moment: an order that changes while it is made is none.
            let age = (now - idle.begun).as_millis().max(1);
            let rate = u128::from(idle.received) * 1000 / age;
            (self.is_beyond_share(&idle.owner), Reverse(rate))
        });
        let mut recalled = 0;
        while recalled < bytes
            && let Some(idle) = idle.pop()
        {
            if idle.recall.send(()).is_ok() {
                recalled += idle.reserved;
            }
        }
        self.idle = idle;
    }

    /// Whether a caller holds more than it would if all that have parts held the same. Never, where there is only one.
    fn is_beyond_share(&self, owner: &Owner) -> bool {
        let callers = self.holdings.len() as u64;
        callers > 1
            && self
                .holdings
                .get(owner)
                .is_some_and(|holding| holding.bytes > self.total / callers)
    }

    fn grant(&mut self, index: usize, grant: Grant) {
        let waiter = self.waiting.remove(index);
        let (from_free, held, lends_reserve) = match grant {
            Grant::FromFree => (waiter.bytes, waiter.bytes, false),
            Grant::FromReserve => (0, waiter.bytes, true),
            Grant::Buffer(_) => (0, PART_SIZE, false),
        };
        match waiter.granted.send(grant) {
            Ok(()) => {
                self.reserve_lent |= lends_reserve;
                self.free -= from_free;
                self.hold(&waiter.owner, held);
            }
            // A waiter that left in this very moment takes nothing.
            Err(Grant::Buffer(memory)) => self.spare.push(memory),
            Err(_) => {}
        }
    }
}
