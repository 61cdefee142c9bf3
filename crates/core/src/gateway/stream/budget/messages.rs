//! The memory of the messages of one stream, from the arrival of their bytes until parts take them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Budget, Reservation, Wish,
    amount::Amount,
    ledger::{Grant, Holder, Idle},
};
use crate::{error::Result, upload::Owner};

/// The memory of the messages of one stream. The transport reserves it as bytes arrive, and releases what the stream has
/// taken from it.
#[derive(Debug)]
pub struct MessageMemory {
    budget: Arc<Budget>,
    owner: Owner,
    stream: u64,
    begun: Instant,
    waits: Mutex<Waits>,
}

/// How long the stream has waited for memory.
#[derive(Debug, Default)]
struct Waits {
    ended: Duration,
    since: Option<Instant>,
}

/// A running wait for memory.
struct Wait<'a>(&'a MessageMemory);

// === impl MessageMemory ===

impl MessageMemory {
    pub(in super::super) fn new(budget: &Arc<Budget>, owner: &Owner) -> Self {
        let stream = budget.number();
        let mut ledger = budget.lock();
        ledger.begin(owner);
        ledger.open(stream);
        drop(ledger);
        Self {
            budget: Arc::clone(budget),
            owner: owner.clone(),
            stream,
            begun: Instant::now(),
            waits: Mutex::default(),
        }
    }

    /// Reserves memory for `bytes` that have arrived of a message of this length, at once. `false` if there is not enough.
    pub fn try_arrive(&self, bytes: u64, length: u64) -> bool {
        let mut ledger = self.budget.lock();
        let grant = ledger.take(&self.owner, self.holder(), (bytes, length));
        let is_granted = grant.is_some();
        if let Some(grant) = grant {
            ledger.arrive(self.stream, amount(&grant, bytes));
        }
        is_granted
    }

    /// Reserves memory for `bytes` that have arrived of a message of this length, and waits for it. The length is
    /// 0 if it is not known yet.
    ///
    /// # Errors
    /// `ResourceExhausted` if no memory is free for too long. `FailedPrecondition` for a message that is larger than all
    /// memory.
    pub async fn arrive(&self, bytes: u64, length: u64) -> Result<()> {
        let _wait = self.wait();
        let wish = Wish {
            bytes,
            length,
            reserved: self.held(),
            reuses: false,
        };
        let grant = self.budget.get(&self.owner, self.holder(), wish);
        let amount = amount(&grant.await?, bytes);
        self.budget.lock().arrive(self.stream, amount);
        Ok(())
    }

    /// Releases what is reserved beyond `bytes`: the stream has taken all messages except the incomplete one, of which
    /// `bytes` have arrived.
    pub fn keep(&self, bytes: u64) {
        let mut ledger = self.budget.lock();
        let Some(held) = ledger.messages(self.stream) else {
            return;
        };
        let beyond = held.total().saturating_sub(bytes);
        if beyond > 0 {
            let released = held.split(beyond);
            ledger.give_back(&self.owner, self.holder(), released);
        }
    }

    /// How long the stream has waited for memory so far.
    pub(in super::super) fn waited(&self) -> Duration {
        let waits = self.lock();
        waits.ended + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The number of the stream.
    pub(in super::super) fn stream(&self) -> u64 {
        self.stream
    }

    /// Returns when the stream, which waits for its sender, is recalled because it is slow. The caller must then end it.
    /// `part` is the current part, and how many of its bytes have been received.
    pub(in super::super) async fn recalled(&self, part: Option<(&Reservation, u64)>) {
        let (recall, recalled) = oneshot::channel();
        let idle = Idle {
            owner: self.owner.clone(),
            stream: self.stream,
            received: part.map_or(0, |(_, received)| received),
            reserved: part.map_or(0, |(reservation, _)| reservation.reserved()),
            begun: part.map_or(self.begun, |(reservation, _)| reservation.begun()),
            since: Instant::now(),
            recall,
        };
        self.budget.lock().wait_for_sender(idle);
        if recalled.await.is_err() {
            std::future::pending().await
        }
    }

    fn held(&self) -> u64 {
        let mut ledger = self.budget.lock();
        ledger.messages(self.stream).map_or(0, |held| held.total())
    }

    fn holder(&self) -> Holder {
        Holder {
            stream: self.stream,
            part: None,
        }
    }

    fn wait(&self) -> Wait<'_> {
        self.lock().since = Some(Instant::now());
        Wait(self)
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MessageMemory {
    fn drop(&mut self) {
        let mut ledger = self.budget.lock();
        let held = ledger.close(self.stream);
        ledger.give_back(&self.owner, self.holder(), held);
        ledger.end(&self.owner);
    }
}

// === impl Wait ===

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waits = self.0.lock();
        let waited = waits
            .since
            .take()
            .map_or(Duration::ZERO, |since| since.elapsed());
        waits.ended += waited;
    }
}

/// What was granted for the requested `bytes`.
fn amount(grant: &Grant, bytes: u64) -> Amount {
    match grant {
        Grant::FromFree => Amount {
            from_free: bytes,
            from_reserve: 0,
        },
        Grant::FromReserve => Amount {
            from_free: 0,
            from_reserve: bytes,
        },
        // Only parts ask for a buffer.
        Grant::Buffer(_) => Amount::default(),
    }
}
