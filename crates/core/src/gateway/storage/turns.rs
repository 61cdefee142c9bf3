//! Turns to put a part into a store. There are as many at a time as the adaptive limit of the store allows, and they are
//! shared fairly among uploads.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};

use super::limit::AdaptiveLimit;
use crate::{
    error::{Error, Result},
    upload::UploadId,
};

/// The turns of one store.
#[derive(Debug)]
pub(in crate::gateway) struct Turns(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    limit: AdaptiveLimit,
    /// The number of turns that are taken.
    taken: usize,
    /// Each upload once; the first one is next.
    waiting: VecDeque<Waiting>,
}

/// The parts of one upload that wait for a turn.
#[derive(Debug)]
struct Waiting {
    upload: UploadId,
    parts: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to put one part. Returned when it is dropped.
#[derive(Debug)]
pub(in crate::gateway) struct Turn(Arc<Turns>);

// === impl Turns ===

impl Turns {
    /// At most `max` turns at a time.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Queue {
            limit: AdaptiveLimit::new(max),
            taken: 0,
            waiting: VecDeque::new(),
        })))
    }

    /// How many parts may be in flight now.
    pub(in crate::gateway) fn limit(&self) -> usize {
        self.lock().limit.current()
    }

    /// Waits for a turn for a part of `upload`. Uploads that wait get turns one after the other. Each turn is returned
    /// when its request has succeeded, failed or timed out, so no upload waits forever.
    ///
    /// # Errors
    /// `Internal`, never in practice: the queue does not drop a part that waits.
    pub(in crate::gateway) async fn take(self: &Arc<Self>, upload: &UploadId) -> Result<Turn> {
        let granted = {
            let mut queue = self.lock();
            if queue.waiting.is_empty() && queue.has_free_turn() {
                queue.taken += 1;
                return Ok(Turn(Arc::clone(self)));
            }
            queue.enqueue(upload)
        };
        // The parts that waited before may all have stopped waiting.
        self.serve();
        let granted = granted.await;
        granted.map_err(|error| Error::internal("wait for a turn to put a part", error))
    }

    /// Gives free turns to the parts that wait.
    fn serve(self: &Arc<Self>) {
        loop {
            let Some(part) = self.lock().next() else {
                return;
            };
            // If the part has stopped waiting meanwhile, the turn is dropped here, and so returned.
            drop(part.send(Turn(Arc::clone(self))));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A std mutex: held for a few instructions, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Queue ===

impl Queue {
    fn has_free_turn(&self) -> bool {
        self.taken < self.limit.current()
    }

    fn enqueue(&mut self, upload: &UploadId) -> oneshot::Receiver<Turn> {
        // Parts of streams that have ended. Removed here, so that the queue is no longer than the parts that wait.
        for waiting in &mut self.waiting {
            waiting.parts.retain(|part| !part.is_closed());
        }
        self.waiting.retain(|waiting| !waiting.parts.is_empty());
        let (grant, granted) = oneshot::channel();
        let mut known = self.waiting.iter_mut();
        match known.find(|waiting| waiting.upload == *upload) {
            Some(waiting) => waiting.parts.push_back(grant),
            None => self.waiting.push_back(Waiting {
                upload: upload.clone(),
                parts: VecDeque::from([grant]),
            }),
        }
        granted
    }

    /// Takes a free turn for the next part that waits. The next upload comes first then.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while self.has_free_turn() {
            let mut first = self.waiting.pop_front()?;
            let part = first.parts.pop_front();
            if !first.parts.is_empty() {
                self.waiting.push_back(first);
            }
            if let Some(part) = part.filter(|part| !part.is_closed()) {
                self.taken += 1;
                return Some(part);
            }
        }
        None
    }
}

// === impl Turn ===

impl Turn {
    /// Adapts the limit to the result of a put that began at `begun`.
    pub(super) fn report<T>(&self, begun: Instant, put: &Result<T>) {
        let mut queue = self.0.lock();
        match put {
            Ok(_) => queue.limit.put(begun),
            Err(error) if error.is_congestion() => queue.limit.reduce(begun),
            Err(_) => {}
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.serve();
    }
}

#[cfg(test)]
mod tests;
