//! The byte budget: how much of all files together may lie in memory.
//!
//! Streams draw bytes as they arrive, never a whole part ahead. Under pressure the part that has drawn most goes first, so
//! that parts become full one after the other instead of all being half full. So that they cannot wait for each other for
//! ever, a reserve of one maximal part is lent to one of them at a time: it can always be completed, and gives everything
//! back. Where that does not help, because parts fill too slowly, the slowest are recalled.
//!
//! Full buffers are kept for the next parts, drawn as they are: fresh memory costs a page fault for each 4 KiB. They are let
//! go as soon as half-full parts need their bytes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use memmap2::MmapMut;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::{Error, Kind, Reason, Result},
    upload::PART_SIZE,
};

/// How many buffers are kept at most, each of the usual part size.
const MOST_SPARE: usize = 16;

/// The time between two recalls: a part that is recalled gives its bytes back well within it, and may be enough.
const RECALL_PAUSE: Duration = Duration::from_millis(100);

/// A number of bytes that all streams share.
#[derive(Debug)]
pub(super) struct Budget {
    state: Mutex<State>,
    /// How long a draw waits before the stream is ended.
    patience: Duration,
}

#[derive(Debug)]
struct State {
    free: u64,
    reserve: u64,
    reserve_lent: bool,
    waiting: Vec<Waiter>,
    /// Drawn, but nobody's.
    spare: Vec<MmapMut>,
    /// Parts that wait for their senders.
    idle: Vec<Idle>,
    last_recall: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    /// What the part has drawn so far.
    drawn: u64,
    /// Whether the part has nothing yet and would as well go into a whole buffer.
    reuses: bool,
    since: Instant,
    granted: oneshot::Sender<Grant>,
}

/// A part that waits for its sender.
#[derive(Debug)]
struct Idle {
    received: u64,
    drawn: u64,
    begun: Instant,
    recall: oneshot::Sender<()>,
}

#[derive(Debug)]
enum Grant {
    FromFree,
    FromReserve,
    /// A buffer and all its bytes.
    Buffer(MmapMut),
}

/// What one part has drawn; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Draw {
    budget: Arc<Budget>,
    from_free: u64,
    from_reserve: u64,
    holds_reserve: bool,
    begun: Instant,
}

// === impl Budget ===

impl Budget {
    /// A budget of `total` bytes, of which one part of `largest_part` bytes is the reserve.
    pub(super) fn new(total: u64, largest_part: u64, patience: Duration) -> Arc<Self> {
        let reserve = largest_part.min(total);
        let state = State {
            free: total - reserve,
            reserve,
            reserve_lent: false,
            waiting: Vec::new(),
            spare: Vec::new(),
            idle: Vec::new(),
            last_recall: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            patience,
        })
    }

    /// Whether parts have waited for so long that nobody else should begin one.
    pub(super) fn is_short(&self) -> bool {
        let state = self.lock();
        let mut waiting = state.waiting.iter();
        waiting.any(|waiter| waiter.since.elapsed() > self.patience / 4)
    }

    /// Begins a part, which has drawn nothing yet.
    pub(super) fn begin(self: &Arc<Self>) -> Draw {
        Draw {
            budget: Arc::clone(self),
            from_free: 0,
            from_reserve: 0,
            holds_reserve: false,
            begun: Instant::now(),
        }
    }

    /// A buffer of `size` bytes that is kept, with what it has drawn: all of its bytes.
    pub(super) fn reuse(self: &Arc<Self>, size: usize) -> Option<(MmapMut, Draw)> {
        if size as u64 != PART_SIZE {
            return None;
        }
        let memory = self.lock().spare.pop()?;
        let mut draw = self.begin();
        draw.from_free = PART_SIZE;
        Some((memory, draw))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A std mutex: held for a few instructions, never across an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Draw ===

impl Draw {
    /// Draws `bytes` more, waiting for others to give some back. A part that has nothing yet and `reuses` may get a buffer
    /// of the usual part size instead of its own, and has then drawn all its bytes.
    ///
    /// # Errors
    /// `ResourceExhausted` when that takes longer than the budget's patience.
    pub(super) async fn draw(&mut self, bytes: u64, reuses: bool) -> Result<Option<MmapMut>> {
        let mut granted = {
            let mut state = self.budget.lock();
            if self.holds_reserve && self.from_reserve + bytes <= state.reserve {
                self.from_reserve += bytes;
                return Ok(None);
            }
            if state.waiting.is_empty() && state.free >= bytes {
                state.free -= bytes;
                self.from_free += bytes;
                return Ok(None);
            }
            let (granted, grant) = oneshot::channel();
            state.waiting.push(Waiter {
                bytes,
                drawn: self.drawn(),
                reuses,
                since: Instant::now(),
                granted,
            });
            state.serve();
            grant
        };
        // Half of it for parts that end by themselves, half for those that are recalled.
        let half = self.budget.patience / 2;
        let mut grant = timeout(half, &mut granted).await;
        let give_up = Instant::now() + half;
        while grant.is_err() && Instant::now() < give_up {
            self.budget.lock().recall(bytes);
            let next = give_up.min(Instant::now() + RECALL_PAUSE);
            grant = timeout_at(next, &mut granted).await;
        }
        let grant = grant.map_or_else(
            |_| {
                // Closed first: what is granted in this very moment must not be lost.
                granted.close();
                granted.try_recv().ok()
            },
            Result::ok,
        );
        match grant {
            Some(Grant::FromFree) => self.from_free += bytes,
            Some(Grant::FromReserve) => {
                self.holds_reserve = true;
                self.from_reserve += bytes;
            }
            Some(Grant::Buffer(memory)) => {
                self.from_free += PART_SIZE;
                return Ok(Some(memory));
            }
            None => return Err(overloaded(Kind::ResourceExhausted)),
        }
        Ok(None)
    }

    /// Ends when this part, `received` bytes of which are there, is recalled for being slow: drop it then.
    pub(super) async fn recalled(&self, received: u64) {
        let (recall, recalled) = oneshot::channel();
        let idle = Idle {
            received,
            drawn: self.drawn(),
            begun: self.begun,
            recall,
        };
        self.budget.lock().wait_for_sender(idle);
        if recalled.await.is_err() {
            std::future::pending().await
        }
    }

    /// How many bytes it has drawn so far.
    pub(super) fn drawn(&self) -> u64 {
        self.from_free + self.from_reserve
    }

    /// Keeps the memory it was drawn for, if another part can have it as it is.
    pub(super) fn keep(&mut self, memory: MmapMut) {
        let mut state = self.budget.lock();
        let whole = self.from_free == PART_SIZE && memory.len() as u64 == PART_SIZE;
        if whole && state.spare.len() < MOST_SPARE {
            self.from_free = 0;
            state.spare.push(memory);
            state.serve();
        }
    }
}

impl Drop for Draw {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.free += self.from_free;
        state.reserve_lent &= !self.holds_reserve;
        state.serve();
    }
}

// === impl State ===

impl State {
    /// Grants what can be granted, to the part that has drawn most, of equal ones to the first that came: an idle buffer,
    /// the free bytes and those of idle buffers, or else the reserve.
    fn serve(&mut self) {
        self.waiting.retain(|waiter| !waiter.granted.is_closed());
        loop {
            let first_of_equals = self.waiting.iter().enumerate().rev();
            let Some((index, fullest)) = first_of_equals.max_by_key(|(_, waiter)| waiter.drawn)
            else {
                return;
            };
            if fullest.reuses
                && let Some(spare) = self.spare.pop()
            {
                self.grant(index, Grant::Buffer(spare));
                continue;
            }
            while self.free < fullest.bytes
                && let Some(spare) = self.spare.pop()
            {
                self.free += spare.len() as u64;
            }
            if self.free >= fullest.bytes {
                self.grant(index, Grant::FromFree);
            } else if !self.reserve_lent {
                self.grant(index, Grant::FromReserve);
            } else {
                return;
            }
        }
    }

    fn wait_for_sender(&mut self, idle: Idle) {
        self.idle.retain(|idle| !idle.recall.is_closed());
        self.idle.push(idle);
    }

    /// Recalls the slowest parts, so many that they give `bytes` back, unless that was just done for somebody else.
    fn recall(&mut self, bytes: u64) {
        let now = Instant::now();
        if self
            .last_recall
            .is_some_and(|last| now - last < RECALL_PAUSE)
        {
            return;
        }
        self.last_recall = Some(now);
        self.idle.retain(|idle| !idle.recall.is_closed());
        self.idle.sort_by_key(|idle| {
            // All at one moment: an order that changes while it is made is none.
            let age = (now - idle.begun).as_millis().max(1);
            // The fastest first, so that the slowest is popped first.
            std::cmp::Reverse(u128::from(idle.received) * 1000 / age)
        });
        let mut recalled = 0;
        while recalled < bytes
            && let Some(idle) = self.idle.pop()
        {
            if idle.recall.send(()).is_ok() {
                recalled += idle.drawn;
            }
        }
    }

    fn grant(&mut self, index: usize, grant: Grant) {
        let waiter = self.waiting.remove(index);
        let lends_reserve = matches!(grant, Grant::FromReserve);
        let bytes = if matches!(grant, Grant::FromFree) {
            waiter.bytes
        } else {
            0
        };
        match waiter.granted.send(grant) {
            Ok(()) => {
                self.reserve_lent |= lends_reserve;
                self.free -= bytes;
            }
            // A waiter that left in this very moment takes nothing.
            Err(Grant::Buffer(memory)) => self.spare.push(memory),
            Err(_) => {}
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
mod tests {
    use futures::{FutureExt, poll};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn half_full_parts_cannot_wait_for_each_other_for_ever() {
        // Room for 100 bytes outside a reserve of 50: four parts of 50 come to 25 each, then all want more.
        let budget = Budget::new(150, 50, PATIENCE);
        let mut parts: Vec<Draw> = (0..4).map(|_| budget.begin()).collect();
        for part in &mut parts {
            part.draw(25, false).await.unwrap();
        }
        let mut finishing: Vec<_> = parts
            .into_iter()
            .map(|mut part| async move { part.draw(25, false).await }.boxed())
            .collect();
        // The first that asks gets the reserve, ends its part, and so frees the next.
        for part in &mut finishing {
            part.await.unwrap();
        }
    }

    #[tokio::test]
    async fn under_pressure_the_fullest_part_goes_first() {
        let budget = Budget::new(150, 50, PATIENCE);
        let mut reserved = budget.begin();
        let (mut small, mut large, mut holder) = (budget.begin(), budget.begin(), budget.begin());
        small.draw(10, false).await.unwrap();
        large.draw(30, false).await.unwrap();
        holder.draw(60, false).await.unwrap();
        reserved.draw(50, false).await.unwrap();
        let mut small_waits = std::pin::pin!(small.draw(60, false));
        let mut large_waits = std::pin::pin!(large.draw(60, false));
        assert!(poll!(small_waits.as_mut()).is_pending());
        assert!(poll!(large_waits.as_mut()).is_pending());
        drop(holder);
        assert!(poll!(small_waits.as_mut()).is_pending());
        assert!(poll!(large_waits.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn the_reserve_goes_to_the_part_that_is_nearest_to_full() {
        let budget = Budget::new(150, 50, PATIENCE);
        let mut holder = budget.begin();
        holder.draw(60, false).await.unwrap();
        let (mut small, mut large) = (budget.begin(), budget.begin());
        small.draw(10, false).await.unwrap();
        large.draw(30, false).await.unwrap();
        holder.draw(20, false).await.unwrap();
        let mut small_waits = std::pin::pin!(small.draw(10, false));
        let mut large_waits = std::pin::pin!(large.draw(10, false));
        assert!(poll!(small_waits.as_mut()).is_pending());
        assert!(poll!(large_waits.as_mut()).is_pending());
        drop(holder);
        assert!(poll!(large_waits.as_mut()).is_ready());
        assert!(poll!(small_waits.as_mut()).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_draw_gives_up_when_nobody_gives_anything_back() {
        let budget = Budget::new(50, 50, PATIENCE);
        let mut first = budget.begin();
        first.draw(50, false).await.unwrap();
        let mut second = budget.begin();
        let error = second.draw(1, false).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Overloaded);
        drop(first);
        second.draw(50, false).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_short_once_a_part_has_waited_for_some_time() {
        let budget = Budget::new(50, 50, PATIENCE);
        let mut first = budget.begin();
        first.draw(50, false).await.unwrap();
        let mut second = budget.begin();
        let mut waits = std::pin::pin!(second.draw(1, false));
        assert!(poll!(waits.as_mut()).is_pending());
        assert!(!budget.is_short());
        tokio::time::advance(PATIENCE / 3).await;
        assert!(budget.is_short());
        drop(first);
        waits.await.unwrap();
        assert!(!budget.is_short());
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_part_that_waits_for_its_sender_is_recalled() {
        let budget = Budget::new(150, 50, PATIENCE);
        let (mut slow, mut slower) = (budget.begin(), budget.begin());
        slow.draw(60, false).await.unwrap();
        slower.draw(40, false).await.unwrap();
        let mut reserved = budget.begin();
        reserved.draw(50, false).await.unwrap();
        let slow_idles = tokio::spawn(async move { slow.recalled(60).await });
        let slower_idles = tokio::spawn(async move { slower.recalled(40).await });
        tokio::task::yield_now().await;
        let mut waiting = budget.begin();
        waiting.draw(30, false).await.unwrap();
        slower_idles.await.unwrap();
        assert!(!slow_idles.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_parts_are_recalled_than_are_needed() {
        let budget = Budget::new(150, 50, PATIENCE);
        let mut idling = Vec::new();
        for _ in 0..10 {
            let mut part = budget.begin();
            part.draw(10, false).await.unwrap();
            idling.push(tokio::spawn(async move { part.recalled(10).await }));
        }
        let mut reserved = budget.begin();
        reserved.draw(50, false).await.unwrap();
        tokio::task::yield_now().await;
        // Many wait for as long, and what one recalled part gives back is enough for all of them.
        let mut waiting: Vec<Draw> = (0..10).map(|_| budget.begin()).collect();
        let draws = waiting.iter_mut().map(|part| part.draw(1, false));
        for drawn in futures::future::join_all(draws).await {
            drawn.unwrap();
        }
        assert_eq!(idling.iter().filter(|idle| idle.is_finished()).count(), 1);
    }

    #[tokio::test]
    async fn what_was_drawn_comes_back() {
        let budget = Budget::new(150, 50, PATIENCE);
        for _ in 0..10 {
            let mut part = budget.begin();
            part.draw(100, false).await.unwrap();
            part.draw(50, false).await.unwrap();
        }
        let state = budget.lock();
        assert_eq!(
            (state.free, state.reserve_lent, state.waiting.len()),
            (100, false, 0)
        );
    }
}
