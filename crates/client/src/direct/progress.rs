//! How far a direct upload has come, told by several senders at once.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ClientError, Event,
    proto::v1::{Phase, Upload, UploadProgress},
    wire_size,
};

/// Counts bytes and passes events on.
#[derive(Debug)]
pub(super) struct Progress<F> {
    state: Mutex<State<F>>,
    rate: Option<u64>,
}

/// Bytes of one request that are on their way; they count no more when it has failed.
#[derive(Debug)]
pub(super) struct InFlight<'a, F> {
    progress: &'a Progress<F>,
    sent: u64,
}

#[derive(Debug)]
struct State<F> {
    on_event: F,
    upload_id: String,
    phase: Phase,
    /// Lies in the store.
    settled: u64,
    in_flight: u64,
    /// The first part that the store lacked.
    first_sent: Option<u64>,
    has_skipped: bool,
    /// When bytes were first sent, and how many senders have been let go since.
    began: Instant,
    let_go: u64,
}

// === impl Progress ===

impl<F: FnMut(Event<'_>) + Send> Progress<F> {
    /// Of an upload that may take `rate` bytes a second.
    pub(super) fn new(on_event: F, rate: Option<u64>) -> Self {
        let state = State {
            on_event,
            upload_id: String::new(),
            phase: Phase::Open,
            settled: 0,
            in_flight: 0,
            first_sent: None,
            has_skipped: false,
            began: Instant::now(),
            let_go: 0,
        };
        Self {
            state: Mutex::new(state),
            rate,
        }
    }

    /// It begins, or begins again.
    pub(super) fn opened(&self, upload: &Upload) {
        let mut state = self.lock();
        state.upload_id.clone_from(&upload.upload_id);
        state.phase = Phase::Open;
        (state.settled, state.first_sent, state.has_skipped) = (0, None, false);
        (state.began, state.let_go) = (Instant::now(), 0);
        (state.on_event)(Event::Opened(upload));
    }

    /// The store has `size` bytes already.
    pub(super) fn skipped(&self, size: u64) {
        let mut state = self.lock();
        state.has_skipped = true;
        state.settled += size;
        state.report();
    }

    /// The store lacks what begins at `offset`. Told in order.
    pub(super) fn lacks(&self, offset: u64) {
        self.lock().first_sent.get_or_insert(offset);
    }

    /// All is there, and is being made an object.
    pub(super) fn committing(&self) {
        let mut state = self.lock();
        state.phase = Phase::Committing;
        state.report();
    }

    /// When the next `size` bytes may be sent.
    pub(super) fn turn(&self, size: u64) -> Instant {
        let mut state = self.lock();
        let wait = self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(state.let_go as f64 / rate as f64)
        });
        state.let_go += size;
        state.began + wait
    }

    /// A request with a body begins.
    pub(super) fn in_flight(&self) -> InFlight<'_, F> {
        InFlight {
            progress: self,
            sent: 0,
        }
    }

    /// A request has failed and is tried again.
    pub(super) fn retrying(&self, cause: &ClientError, delay: Duration) {
        (self.lock().on_event)(Event::Retrying { cause, delay });
    }

    /// How many bytes lie in the store.
    pub(super) fn settled(&self) -> u64 {
        self.lock().settled
    }

    /// The upload that was begun last.
    pub(super) fn upload_id(&self) -> Option<String> {
        Some(self.lock().upload_id.clone()).filter(|id| !id.is_empty())
    }

    /// Where in a file of `size` bytes a resume went on; 0 where nothing was resumed.
    pub(super) fn resumed_from(&self, size: u64) -> u64 {
        let state = self.lock();
        if state.has_skipped {
            state.first_sent.unwrap_or(size)
        } else {
            0
        }
    }
}

impl<F> Progress<F> {
    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl<F: FnMut(Event<'_>) + Send> State<F> {
    fn report(&mut self) {
        let progress = UploadProgress {
            upload_id: self.upload_id.clone(),
            received_size: wire_size(self.settled + self.in_flight),
            phase: self.phase.into(),
            ..UploadProgress::default()
        };
        (self.on_event)(Event::Progress(&progress));
    }
}

// === impl InFlight ===

impl<F: FnMut(Event<'_>) + Send> InFlight<'_, F> {
    /// So many more bytes are on their way.
    pub(super) fn sent(&mut self, size: u64) {
        self.sent += size;
        let mut state = self.progress.lock();
        state.in_flight += size;
        state.report();
    }

    /// The store has them, `size` bytes in all.
    pub(super) fn landed(mut self, size: u64) {
        let mut state = self.progress.lock();
        state.settled += size;
        state.in_flight -= mem::take(&mut self.sent);
        state.report();
    }
}

impl<F> Drop for InFlight<'_, F> {
    fn drop(&mut self) {
        self.progress.lock().in_flight -= self.sent;
    }
}
