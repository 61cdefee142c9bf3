//! The progress of a direct upload, reported by several senders.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    proto::v1::{Phase, Upload},
    transfer::{self, Event, Events},
};

/// Counts bytes and reports events.
#[derive(Debug)]
pub(super) struct Progress {
    events: Events,
    state: Mutex<State>,
    rate: Option<u64>,
}

/// The bytes of one request that are in flight. When it is dropped, they no longer count.
#[derive(Debug)]
pub(super) struct InFlight<'a> {
    progress: &'a Progress,
    sent: u64,
}

#[derive(Debug)]
struct State {
    upload_id: String,
    phase: Phase,
    /// Bytes that the store has acknowledged, now or earlier.
    stored: u64,
    in_flight: u64,
    /// The offset of the first part that the store lacked.
    first_missing: Option<u64>,
    has_skipped: bool,
    /// Since when the rate is measured, and the bytes that were allowed to be sent since.
    began: Instant,
    allowed: u64,
}

// === impl Progress ===

impl Progress {
    /// Allows at most `rate` bytes per second.
    pub(super) fn new(events: Events, rate: Option<u64>) -> Self {
        let state = State {
            upload_id: String::new(),
            phase: Phase::Open,
            stored: 0,
            in_flight: 0,
            first_missing: None,
            has_skipped: false,
            began: Instant::now(),
            allowed: 0,
        };
        Self {
            events,
            state: Mutex::new(state),
            rate,
        }
    }

    /// The upload was created or found again.
    pub(super) fn opened(&self, upload: &Upload) {
        let mut state = self.lock();
        state.upload_id.clone_from(&upload.upload_id);
        state.phase = Phase::Open;
        (state.stored, state.first_missing, state.has_skipped) = (0, None, false);
        (state.began, state.allowed) = (Instant::now(), 0);
        self.events.report(Event::opened(upload, 0));
    }

    /// The store already has a part of `size` bytes.
    pub(super) fn skipped(&self, size: u64) {
        let mut state = self.lock();
        state.has_skipped = true;
        state.stored += size;
        self.events.report(state.progress());
    }

    /// The store lacks the part at `offset`. Called in ascending order.
    pub(super) fn missing(&self, offset: u64) {
        self.lock().first_missing.get_or_insert(offset);
    }

    /// The store has all parts, and the object is being made of them.
    pub(super) fn committing(&self) {
        let mut state = self.lock();
        state.phase = Phase::Committing;
        self.events.report(state.progress());
    }

    /// When the next `size` bytes may be sent.
    pub(super) fn send_time(&self, size: u64) -> Instant {
        let mut state = self.lock();
        let wait = self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(state.allowed as f64 / rate as f64)
        });
        state.allowed += size;
        state.began + wait
    }

    /// Starts to count the bytes of a request.
    pub(super) fn in_flight(&self) -> InFlight<'_> {
        InFlight {
            progress: self,
            sent: 0,
        }
    }

    /// Where retries are reported.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// The number of bytes in the store.
    pub(super) fn stored(&self) -> u64 {
        self.lock().stored
    }

    /// The upload that was opened last.
    pub(super) fn upload_id(&self) -> Option<String> {
        Some(self.lock().upload_id.clone()).filter(|id| !id.is_empty())
    }

    /// Where in a file of `size` bytes the resume continued. 0 if the upload was not resumed.
    pub(super) fn resumed_from(&self, size: u64) -> u64 {
        let state = self.lock();
        if state.has_skipped {
            state.first_missing.unwrap_or(size)
        } else {
            0
        }
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn progress(&self) -> Event {
        Event::Progress(transfer::Progress {
            upload_id: self.upload_id.clone(),
            committed_size: 0,
            received_size: self.stored + self.in_flight,
            phase: self.phase,
        })
    }
}

// === impl InFlight ===

impl InFlight<'_> {
    /// `size` more bytes were sent.
    pub(super) fn sent(&mut self, size: u64) {
        self.sent += size;
        let mut state = self.progress.lock();
        state.in_flight += size;
        self.progress.events.report(state.progress());
    }

    /// The store has acknowledged all `size` bytes of the request.
    pub(super) fn acknowledged(mut self, size: u64) {
        let mut state = self.progress.lock();
        state.stored += size;
        state.in_flight -= mem::take(&mut self.sent);
        self.progress.events.report(state.progress());
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.progress.lock().in_flight -= self.sent;
    }
}
