//! The accounts of the memory budget: reservations by caller, waiting parts, and the order in which they are served.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use memmap2::MmapMut;
use tokio::{sync::oneshot, time::Instant};

use super::amount::Amount;
use crate::upload::{Owner, PART_SIZE};

/// The time between two recalls. A recalled part returns its bytes well within it, and they may be enough.
pub(super) const RECALL_PAUSE: Duration = Duration::from_millis(100);

/// A longer message, in bytes, does not get the last free memory. Four times the size that clients are asked for.
const LONG_MESSAGE: u64 = 1024 * 1024;

/// The accounts of the memory budget.
#[derive(Debug)]
pub(super) struct Ledger {
    total: u64,
    pub(super) free: u64,
    /// Bytes that were taken over from the reserve, and that the next free bytes replace.
    debt: u64,
    /// The largest debt with which the reserve is lent to another stream.
    max_debt: u64,
    /// What is left of the reserve.
    pub(super) reserve: u64,
    pub(super) lent: Option<Lent>,
    /// What streams receive, by stream.
    streams: HashMap<u64, Receiving>,
    pub(super) waiting: Vec<Waiter>,
    /// Kept buffers. Their bytes are neither free nor held by a caller.
    pub(super) spare: Vec<MmapMut>,
    /// Parts that wait for their senders.
    idle: Vec<Idle>,
    last_recall: Option<Instant>,
    /// The callers that have parts.
    holdings: HashMap<Owner, Holding>,
}

/// To whom the reserve is lent: a stream, for its messages and one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lent {
    stream: u64,
    part: Option<u64>,
}

/// Who holds bytes: the messages of a stream, or one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) stream: u64,
    pub(super) part: Option<u64>,
}

/// What one stream receives.
#[derive(Debug)]
pub(super) struct Receiving {
    /// What its messages hold.
    pub(super) messages: Amount,
    /// The reserved bytes of its current part.
    pub(super) part: u64,
    /// When bytes of a message arrived last.
    arrived_at: Instant,
}

/// What one caller holds.
#[derive(Debug, Default)]
struct Holding {
    parts: usize,
    bytes: u64,
}

/// A part or a message that waits for bytes.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) owner: Owner,
    pub(super) holder: Holder,
    pub(super) bytes: u64,
    /// The length of its message in bytes, as far as it is known.
    pub(super) length: u64,
    /// Whether nothing is reserved yet, and a kept buffer will do.
    pub(super) reuses: bool,
    pub(super) since: Instant,
    pub(super) granted: oneshot::Sender<Grant>,
}

/// A stream that waits for its sender.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) owner: Owner,
    pub(super) stream: u64,
    /// The received bytes of its current part.
    pub(super) received: u64,
    /// The reserved bytes of its current part.
    pub(super) reserved: u64,
    pub(super) begun: Instant,
    /// When the wait began.
    pub(super) since: Instant,
    pub(super) recall: oneshot::Sender<()>,
}

/// What a waiting part gets.
#[derive(Debug)]
pub(super) enum Grant {
    FromFree,
    FromReserve,
    /// A kept buffer, with all its bytes reserved.
    Buffer(MmapMut),
}

// === impl Ledger ===

impl Ledger {
    /// The accounts of `total` bytes, which include the `reserve`. A debt up to `max_debt` is accepted.
    pub(super) fn new(total: u64, reserve: u64, max_debt: u64) -> Self {
        Self {
            total,
            free: total - reserve,
            debt: 0,
            max_debt,
            reserve,
            lent: None,
            streams: HashMap::new(),
            waiting: Vec::new(),
            spare: Vec::new(),
            idle: Vec::new(),
            last_recall: None,
            holdings: HashMap::new(),
        }
    }

    /// Takes `bytes` at once, if no other request waits for them.
    pub(super) fn take(
        &mut self,
        owner: &Owner,
        holder: Holder,
        (bytes, length): (u64, u64),
    ) -> Option<Grant> {
        let grant = if self.may_borrow(holder) && self.reserve >= bytes {
            Grant::FromReserve
        } else if self.waiting.is_empty() && self.free_for(length) >= bytes {
            Grant::FromFree
        } else {
            return None;
        };
        self.withdraw(&grant, holder, bytes);
        self.hold(owner, bytes);
        Some(grant)
    }

    /// Returns an amount of a part or of messages.
    pub(super) fn give_back(&mut self, owner: &Owner, holder: Holder, amount: Amount) {
        self.release(owner, amount.total());
        self.credit(amount.from_free);
        self.reserve += amount.from_reserve;
        self.end_loan(holder);
        self.serve();
    }

    /// What `stream` receives.
    pub(super) fn receiving(&mut self, stream: u64) -> &mut Receiving {
        self.streams.entry(stream).or_default()
    }

    /// Adds bytes of a message of `stream`, which have arrived.
    pub(super) fn arrive(&mut self, stream: u64, amount: Amount) {
        let receiving = self.receiving(stream);
        receiving.messages.add(amount);
        receiving.arrived_at = Instant::now();
    }

    /// Ends the account of `stream`, and returns what its messages hold.
    pub(super) fn close(&mut self, stream: u64) -> Amount {
        let closed = self.streams.remove(&stream);
        closed
            .map(|receiving| receiving.messages)
            .unwrap_or_default()
    }

    /// Moves up to `bytes` from the messages of a stream to one of its parts.
    pub(super) fn hand_over(&mut self, part: Holder, bytes: u64) -> Amount {
        let may_borrow = self.may_borrow(part);
        let Some(receiving) = self.streams.get_mut(&part.stream) else {
            return Amount::default();
        };
        let mut moved = receiving.messages.split(bytes);
        if moved.from_reserve > 0 {
            if may_borrow {
                self.lent = Some(Lent {
                    stream: part.stream,
                    part: part.part,
                });
            } else {
                self.redeem(&mut moved);
            }
        }
        moved
    }

    /// Replaces what is from the reserve by free bytes, or by a debt.
    fn redeem(&mut self, amount: &mut Amount) {
        let bytes = std::mem::take(&mut amount.from_reserve);
        amount.from_free += bytes;
        self.reserve += bytes;
        let paid = self.free.min(bytes);
        self.free -= paid;
        self.debt += bytes - paid;
    }

    /// Adds free bytes, which first pay the debt.
    fn credit(&mut self, bytes: u64) {
        let paid = self.debt.min(bytes);
        self.debt -= paid;
        self.free += bytes - paid;
    }

    /// Whether the reserve is lent to `holder`, or only to its stream.
    fn may_borrow(&self, holder: Holder) -> bool {
        self.lent.is_some_and(|lent| {
            lent.stream == holder.stream
                && (holder.part.is_none() || lent.part.is_none() || lent.part == holder.part)
        })
    }

    /// Ends a loan whose `holder` has returned its bytes. A message that its stream has begun to receive in the meantime
    /// keeps its bytes. They are replaced, so that the next stream gets the whole reserve.
    fn end_loan(&mut self, holder: Holder) {
        let Some(lent) = self.lent else { return };
        let is_of_part = lent.part.is_some();
        if lent.stream != holder.stream || (is_of_part && lent.part != holder.part) {
            return;
        }
        let held = self.streams.get(&lent.stream);
        let mut held = held.map(|held| held.messages).unwrap_or_default();
        if held.from_reserve > 0 {
            if !is_of_part || self.debt + held.from_reserve > self.max_debt {
                self.lent = Some(Lent { part: None, ..lent });
                return;
            }
            self.redeem(&mut held);
            self.receiving(lent.stream).messages = held;
        }
        self.lent = None;
    }

    fn withdraw(&mut self, grant: &Grant, holder: Holder, bytes: u64) {
        match grant {
            Grant::FromFree => self.free -= bytes,
            Grant::FromReserve => {
                self.reserve -= bytes;
                let part = self.lent.and_then(|lent| lent.part).or(holder.part);
                self.lent = Some(Lent {
                    stream: holder.stream,
                    part,
                });
            }
            Grant::Buffer(_) => {}
        }
    }

    /// Adds a part of `owner`.
    pub(super) fn begin(&mut self, owner: &Owner) {
        match self.holdings.get_mut(owner) {
            Some(holding) => holding.parts += 1,
            None => {
                let holding = Holding { parts: 1, bytes: 0 };
                self.holdings.insert(owner.clone(), holding);
            }
        }
    }

    /// Removes a part of `owner`, which has returned its reservation.
    pub(super) fn end(&mut self, owner: &Owner) {
        if let Some(holding) = self.holdings.get_mut(owner) {
            holding.parts -= 1;
            if holding.parts == 0 {
                self.holdings.remove(owner);
            }
        }
    }

    /// Adds `bytes` to the reservations of `owner`.
    pub(super) fn hold(&mut self, owner: &Owner, bytes: u64) {
        if let Some(holding) = self.holdings.get_mut(owner) {
            holding.bytes += bytes;
        }
    }

    /// Subtracts `bytes` from the reservations of `owner`.
    pub(super) fn release(&mut self, owner: &Owner, bytes: u64) {
        if let Some(holding) = self.holdings.get_mut(owner) {
            holding.bytes -= bytes;
        }
    }

    /// Whether parts that are served before those of a new stream of `owner` have waited for longer than `long`.
    pub(super) fn is_short(&self, owner: &Owner, long: Duration) -> bool {
        let is_beyond = self.is_beyond_share(owner);
        let mut waiting = self.waiting.iter();
        waiting.any(|waiter| {
            waiter.since.elapsed() > long
                && (waiter.holder.part.is_some() || self.part(waiter.holder.stream) > 0)
                && (is_beyond || !self.is_beyond_share(&waiter.owner))
        })
    }

    /// The free bytes for a message of this length. The last eighth of the memory is for messages of usual sizes, so that
    /// long ones which never end do not stop them.
    fn free_for(&self, length: u64) -> u64 {
        if length > LONG_MESSAGE {
            self.free.saturating_sub(self.total / 8)
        } else {
            self.free
        }
    }

    /// The reserved bytes of the current part of a stream.
    fn part(&self, stream: u64) -> u64 {
        self.streams
            .get(&stream)
            .map_or(0, |receiving| receiving.part)
    }

    /// Serves those that wait for as long as possible: the stream to which the reserve is lent; then those of callers within
    /// their share, then those with more bytes in their part, then those with the shorter message, then those that came first. A part gets a kept buffer, or free bytes (including those of kept buffers), or the reserve.
    pub(super) fn serve(&mut self) {
        self.waiting.retain(|waiter| !waiter.granted.is_closed());
        loop {
            let mut waiting = self.waiting.iter();
            let borrower = waiting
                .position(|waiter| self.may_borrow(waiter.holder) && self.reserve >= waiter.bytes);
            if let Some(index) = borrower {
                self.grant(index, Grant::FromReserve);
                continue;
            }
            let first_of_equals = self.waiting.iter().enumerate().rev();
            let first = first_of_equals.max_by_key(|(_, waiter)| {
                let is_within = !self.is_beyond_share(&waiter.owner);
                (
                    is_within,
                    self.part(waiter.holder.stream),
                    Reverse(waiter.length),
                )
            });
            let Some((index, first)) = first else {
                return;
            };
            let (bytes, length) = (first.bytes, first.length);
            if first.reuses
                && let Some(spare) = self.spare.pop()
            {
                self.grant(index, Grant::Buffer(spare));
                continue;
            }
            while self.free_for(length) < bytes
                && let Some(spare) = self.spare.pop()
            {
                self.credit(spare.len() as u64);
            }
            if self.free_for(length) >= bytes {
                self.grant(index, Grant::FromFree);
            } else if self.lent.is_none() && self.reserve >= bytes {
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

    /// Recalls parts of callers beyond their share, for a part of a caller that is within its share.
    pub(super) fn recall_beyond_share(&mut self, bytes: u64, owner: &Owner) {
        if self.is_beyond_share(owner) {
            return;
        }
        let idle = self.idle.iter();
        let beyond =
            idle.filter(|idle| !idle.recall.is_closed() && self.is_beyond_share(&idle.owner));
        let reserved: u64 = beyond.map(|idle| self.held(idle)).sum();
        if reserved > 0 {
            self.recall(bytes.min(reserved));
        }
    }

    /// Recalls streams that wait for senders which have sent nothing for `limit`.
    pub(super) fn recall_stalled(&mut self, bytes: u64, limit: Duration) {
        let (stalled, others) = std::mem::take(&mut self.idle)
            .into_iter()
            .partition(|idle| self.stalled_since(idle).elapsed() >= limit);
        self.idle = stalled;
        self.recall(bytes);
        self.idle.extend(others);
    }

    /// Since when a sender has sent nothing.
    fn stalled_since(&self, idle: &Idle) -> Instant {
        let receiving = self.streams.get(&idle.stream);
        receiving.map_or(idle.since, |receiving| idle.since.max(receiving.arrived_at))
    }

    /// Recalls the slowest parts, first those of callers beyond their share, until the recalled parts return `bytes`.
    /// Does nothing if another waiting part has just caused a recall.
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
        // Parts are recalled from the end of the list.
        idle.sort_by_cached_key(|idle| {
            // All rates are computed for the same time, so that the order does not change during the sort.
            let age = (now - idle.begun).as_millis().max(1);
            let messages = self.streams.get(&idle.stream);
            let messages = messages.map_or(0, |receiving| receiving.messages.total());
            let received = idle.received + messages;
            let rate = u128::from(received) * 1000 / age;
            (self.is_beyond_share(&idle.owner), Reverse(rate))
        });
        let (mut recalled, mut kept) = (0, Vec::new());
        while recalled < bytes
            && let Some(idle) = idle.pop()
        {
            let held = self.held(&idle);
            if held == 0 {
                kept.push(idle);
            } else if idle.recall.send(()).is_ok() {
                recalled += held;
            }
        }
        idle.extend(kept);
        self.idle = idle;
    }

    /// How many bytes the recall of a stream returns. None if it does not wait for its sender, but for memory.
    fn held(&self, idle: &Idle) -> u64 {
        let mut waiting = self.waiting.iter();
        if waiting.any(|waiter| waiter.holder.stream == idle.stream) {
            return 0;
        }
        let messages = self.streams.get(&idle.stream);
        idle.reserved + messages.map_or(0, |receiving| receiving.messages.total())
    }

    /// Whether a caller holds more than an equal share of all callers that have parts. Never true for the only caller.
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
        let before = (self.free, self.reserve, self.lent);
        self.withdraw(&grant, waiter.holder, waiter.bytes);
        let held = match grant {
            Grant::Buffer(_) => PART_SIZE,
            Grant::FromFree | Grant::FromReserve => waiter.bytes,
        };
        match waiter.granted.send(grant) {
            Ok(()) => self.hold(&waiter.owner, held),
            // A waiter that was dropped at this moment gets nothing.
            Err(grant) => {
                (self.free, self.reserve, self.lent) = before;
                if let Grant::Buffer(memory) = grant {
                    self.spare.push(memory);
                }
            }
        }
    }
}

// === impl Receiving ===

impl Default for Receiving {
    fn default() -> Self {
        Self {
            messages: Amount::default(),
            part: 0,
            arrived_at: Instant::now(),
        }
    }
}
