//! The accounts of the memory budget: reservations by caller, waiting parts, and the order in which they are served.

mod loan;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use memmap2::MmapMut;
use tokio::{sync::oneshot, time::Instant};

use self::loan::Lent;
use super::amount::Amount;
use crate::upload::{Owner, PART_SIZE};

/// The time between two recalls. A recalled part returns its bytes well within it, and they may be enough.
pub(super) const RECALL_PAUSE: Duration = Duration::from_millis(100);

/// After how long without a byte of its sender a stream is recalled as soon as another one waits for memory.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(1);

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
    lent: Option<Lent>,
    /// What streams receive, by stream.
    streams: HashMap<u64, Receiving>,
    pub(super) waiting: Vec<Waiter>,
    /// Kept buffers. Their bytes are neither free nor held by a caller.
    pub(super) spare: Vec<MmapMut>,
    /// How many parts are large, and the most that were at a time.
    large: usize,
    most_large: usize,
    /// Parts that wait for their senders.
    idle: Vec<Idle>,
    /// When a stream that waits last looked for each kind of streams to recall.
    last_recall: [Option<Instant>; 3],
    /// The callers that have parts.
    holdings: HashMap<Owner, Holding>,
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
    /// The received bytes of its current part.
    part: u64,
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
    /// How many bytes the part of its stream has.
    pub(super) part: u64,
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

/// Which of the streams that wait for their senders are recalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recall {
    /// Those whose senders have sent nothing for [`STALL_LIMIT`].
    Stalled,
    /// Those of callers beyond their share, for a caller within its share.
    BeyondShare,
    /// All, except those that have just begun.
    Any,
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
            large: 0,
            most_large: 0,
            idle: Vec::new(),
            last_recall: [None; 3],
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

    /// Opens the account of `stream`.
    pub(super) fn open(&mut self, stream: u64) {
        self.streams.insert(stream, Receiving::default());
    }

    /// What the messages of `stream` hold.
    pub(super) fn messages(&mut self, stream: u64) -> Option<&mut Amount> {
        let receiving = self.streams.get_mut(&stream)?;
        Some(&mut receiving.messages)
    }

    /// Adds bytes of a message of `stream`, which have arrived.
    pub(super) fn arrive(&mut self, stream: u64, amount: Amount) {
        if let Some(receiving) = self.streams.get_mut(&stream) {
            receiving.messages.add(amount);
            receiving.arrived_at = Instant::now();
        }
    }

    /// Records how many bytes of its current part a stream has received.
    pub(super) fn fill(&mut self, stream: u64, part: u64) {
        if let Some(receiving) = self.streams.get_mut(&stream) {
            receiving.part = part;
        }
    }

    /// Ends the account of `stream`, and returns what its messages hold.
    pub(super) fn close(&mut self, stream: u64) -> Amount {
        let closed = self.streams.remove(&stream);
        closed
            .map(|receiving| receiving.messages)
            .unwrap_or_default()
    }

    /// Adds a large part. Frees kept buffers beyond the most large parts that there were at a time: a part that is the first of its
    /// stream has new memory, and would add one each time.
    pub(super) fn begin_large(&mut self) {
        self.large += 1;
        self.most_large = self.most_large.max(self.large);
        while self.spare.len() + self.large > self.most_large
            && let Some(spare) = self.spare.pop()
        {
            self.credit(spare.len() as u64);
        }
    }

    /// Removes a large part.
    pub(super) fn end_large(&mut self) {
        self.large -= 1;
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
                && (waiter.holder.part.is_some() || waiter.part > 0)
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

    /// The received bytes of the current part of a stream.
    pub(super) fn part(&self, stream: u64) -> u64 {
        let receiving = self.streams.get(&stream);
        receiving.map_or(0, |receiving| receiving.part)
    }

    /// Serves those that wait for as long as possible: the stream to which the reserve is lent; then those of callers within
    /// their share, then those with more bytes in their part, then those with the shorter message, then those that came
    /// first. A part gets a kept buffer, or free bytes (including those of kept buffers), or the reserve.
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
                (is_within, waiter.part, Reverse(waiter.length))
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

    /// Recalls the slowest of the streams that `which` selects, first those of callers beyond their share, until they return
    /// `bytes` for a stream of `owner`. Does nothing if another waiting stream has just looked for the same ones, or has just
    /// caused a recall.
    pub(super) fn recall(&mut self, which: Recall, bytes: u64, owner: &Owner) {
        let now = Instant::now();
        let last = &mut self.last_recall[which as usize];
        if last.is_some_and(|last| now - last < RECALL_PAUSE) {
            return;
        }
        *last = Some(now);
        let waiting = |for_part: bool| -> HashSet<u64> {
            let holders = self.waiting.iter().map(|waiter| waiter.holder);
            let holders = holders.filter(|holder| holder.part.is_some() == for_part);
            holders.map(|holder| holder.stream).collect()
        };
        let (parts, messages) = (waiting(true), waiting(false));
        let may_take = !self.is_beyond_share(owner);
        let idle = std::mem::take(&mut self.idle).into_iter();
        let idle = idle.filter(|idle| !idle.recall.is_closed());
        let (mut selected, others): (Vec<_>, Vec<_>) = idle.partition(|idle| {
            // One whose part waits for memory returns nothing soon. One whose message waits does, but its sender does not
            // stall.
            let waits = messages.contains(&idle.stream);
            !parts.contains(&idle.stream)
                && self.held(idle) > 0
                && match which {
                    Recall::Stalled => !waits && now - self.stalled_since(idle) >= STALL_LIMIT,
                    Recall::BeyondShare => !waits && may_take && self.is_beyond_share(&idle.owner),
                    // The rate of one that has just begun says nothing.
                    Recall::Any => now - idle.begun >= STALL_LIMIT,
                }
        });
        // Streams are recalled from the end of the list.
        selected.sort_by_cached_key(|idle| {
            // All rates are computed for the same time, so that the order does not change during the sort.
            let age = (now - idle.begun).as_millis().max(1);
            let rate = u128::from(idle.received + self.incomplete(idle)) * 1000 / age;
            (self.is_beyond_share(&idle.owner), Reverse(rate))
        });
        let mut recalled = 0;
        while recalled < bytes
            && let Some(idle) = selected.pop()
        {
            let held = self.held(&idle);
            if idle.recall.send(()).is_ok() {
                recalled += held;
            }
        }
        if recalled > 0 {
            self.last_recall = [Some(now); 3];
        }
        self.idle = others;
        self.idle.extend(selected);
    }

    /// Since when a sender has sent nothing.
    fn stalled_since(&self, idle: &Idle) -> Instant {
        let receiving = self.streams.get(&idle.stream);
        receiving.map_or(idle.since, |receiving| idle.since.max(receiving.arrived_at))
    }

    /// How many bytes the recall of a stream returns.
    fn held(&self, idle: &Idle) -> u64 {
        idle.reserved + self.incomplete(idle)
    }

    /// How many bytes the messages of a stream hold.
    fn incomplete(&self, idle: &Idle) -> u64 {
        let receiving = self.streams.get(&idle.stream);
        receiving.map_or(0, |receiving| receiving.messages.total())
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
