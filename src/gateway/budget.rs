//! The byte budget: how much of all files together may lie in memory.
//!
//! Streams draw bytes as they arrive, never a whole part ahead. So that many half-full parts cannot wait for each other
//! for ever, a reserve of one maximal part is lent to one of them at a time, to the one nearest to a full part: it can
//! always be completed, and gives everything back. Where that does not help, because parts fill too slowly, the slowest
//! are recalled.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::error::{Error, Kind, Reason, Result};

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
    idle: Vec<Idle>,
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    /// What the part has drawn so far.
    drawn: u64,
    granted: oneshot::Sender<Grant>,
}

/// A part that waits for its sender.
#[derive(Debug)]
struct Idle {
    drawn: u64,
    begun: Instant,
    recall: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    FromFree,
    FromReserve,
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
            idle: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            patience,
        })
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

    fn lock(&self) -> MutexGuard<'_, State> {
        // A std mutex: held for a few instructions, never across an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Draw ===

impl Draw {
    /// Draws `bytes` more, waiting for others to give some back.
    ///
    /// # Errors
    /// `ResourceExhausted` when that takes longer than the budget's patience.
    pub(super) async fn draw(&mut self, bytes: u64) -> Result<()> {
        let mut grant = {
            let mut state = self.budget.lock();
            if self.holds_reserve && self.from_reserve + bytes <= state.reserve {
                self.from_reserve += bytes;
                return Ok(());
            }
            if state.waiting.is_empty() && state.free >= bytes {
                state.free -= bytes;
                self.from_free += bytes;
                return Ok(());
            }
            let (granted, grant) = oneshot::channel();
            state.waiting.push(Waiter {
                bytes,
                drawn: self.drawn(),
                granted,
            });
            state.serve();
            grant
        };
        // Half of it for parts that end by themselves, half for those that are recalled.
        let half = self.budget.patience / 2;
        let mut granted = timeout(half, &mut grant).await;
        if granted.is_err() {
            self.budget.lock().recall(bytes);
            granted = timeout(half, &mut grant).await;
        }
        let granted = granted.map_or_else(
            |_| {
                // Closed first: what is granted in this very moment must not be lost.
                grant.close();
                grant.try_recv().ok()
            },
            Result::ok,
        );
        match granted {
            Some(Grant::FromFree) => self.from_free += bytes,
            Some(Grant::FromReserve) => {
                self.holds_reserve = true;
                self.from_reserve += bytes;
            }
            None => return Err(overloaded(Kind::ResourceExhausted)),
        }
        Ok(())
    }

    /// Ends when this part is recalled for being slow: drop it then.
    pub(super) async fn recalled(&self) {
        let (recall, recalled) = oneshot::channel();
        let idle = Idle {
            drawn: self.drawn(),
            begun: self.begun,
            recall,
        };
        self.budget.lock().wait_for_sender(idle);
        if recalled.await.is_err() {
            std::future::pending().await
        }
    }

    fn drawn(&self) -> u64 {
        self.from_free + self.from_reserve
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
    /// Grants what can be granted: first come, first served from the free bytes; then the reserve to whoever is
    /// nearest to a full part.
    fn serve(&mut self) {
        self.waiting.retain(|waiter| !waiter.granted.is_closed());
        while self
            .waiting
            .first()
            .is_some_and(|first| first.bytes <= self.free)
        {
            self.grant(0, Grant::FromFree);
        }
        while !self.reserve_lent {
            let fullest = self
                .waiting
                .iter()
                .enumerate()
                .max_by_key(|(_, waiter)| waiter.drawn);
            let Some(index) = fullest.map(|(index, _)| index) else {
                return;
            };
            self.grant(index, Grant::FromReserve);
        }
    }

    fn wait_for_sender(&mut self, idle: Idle) {
        self.idle.retain(|idle| !idle.recall.is_closed());
        self.idle.push(idle);
    }

    /// Recalls the slowest parts, so many that they give `bytes` back.
    fn recall(&mut self, bytes: u64) {
        self.idle.retain(|idle| !idle.recall.is_closed());
        self.idle.sort_by_key(|idle| {
            let age = idle.begun.elapsed().as_millis().max(1);
            // The fastest first, so that the slowest is popped first.
            std::cmp::Reverse(u128::from(idle.drawn) * 1000 / age)
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
        // A waiter that left in this very moment takes nothing.
        if waiter.granted.send(grant).is_ok() {
            match grant {
                Grant::FromFree => self.free -= waiter.bytes,
                Grant::FromReserve => self.reserve_lent = true,
            }
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
    .retry_after(Duration::from_secs(5))
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
            part.draw(25).await.unwrap();
        }
        let mut finishing: Vec<_> = parts
            .into_iter()
            .map(|mut part| async move { part.draw(25).await }.boxed())
            .collect();
        // The first that asks gets the reserve, ends its part, and so frees the next.
        for part in &mut finishing {
            part.await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_reserve_goes_to_the_part_that_is_nearest_to_full() {
        let budget = Budget::new(150, 50, PATIENCE);
        let mut holder = budget.begin();
        holder.draw(60).await.unwrap();
        let (mut small, mut large) = (budget.begin(), budget.begin());
        small.draw(10).await.unwrap();
        large.draw(30).await.unwrap();
        holder.draw(20).await.unwrap();
        let mut small_waits = std::pin::pin!(small.draw(10));
        let mut large_waits = std::pin::pin!(large.draw(10));
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
        first.draw(50).await.unwrap();
        let mut second = budget.begin();
        let error = second.draw(1).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Overloaded);
        drop(first);
        second.draw(50).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_part_that_waits_for_its_sender_is_recalled() {
        let budget = Budget::new(150, 50, PATIENCE);
        let (mut slow, mut slower) = (budget.begin(), budget.begin());
        slow.draw(60).await.unwrap();
        slower.draw(40).await.unwrap();
        let mut reserved = budget.begin();
        reserved.draw(50).await.unwrap();
        let slow_idles = tokio::spawn(async move {
            slow.recalled().await;
        });
        let slower_idles = tokio::spawn(async move { slower.recalled().await });
        tokio::task::yield_now().await;
        let mut waiting = budget.begin();
        waiting.draw(30).await.unwrap();
        slower_idles.await.unwrap();
        assert!(!slow_idles.is_finished());
    }

    #[tokio::test]
    async fn what_was_drawn_comes_back() {
        let budget = Budget::new(150, 50, PATIENCE);
        for _ in 0..10 {
            let mut part = budget.begin();
            part.draw(100).await.unwrap();
            part.draw(50).await.unwrap();
        }
        let state = budget.lock();
        assert_eq!(
            (state.free, state.reserve_lent, state.waiting.len()),
            (100, false, 0)
        );
    }
}
