//! The open connections of a listener, and which of them makes room for another one.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::activity::{Activity, Quiet};

/// How long a connection that is asked for its place has to give it, before another one is asked.
const REPLACE_INTERVAL: Duration = Duration::from_millis(100);

/// How many connections are chosen to make room in one pass over the list.
const CHOSEN: usize = 64;

/// The shortest time between two warnings about the same listener.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The open connections of a listener.
#[derive(Debug)]
pub(super) struct OpenConnections {
    listener: &'static str,
    max: usize,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: HashMap<u64, Arc<Activity>>,
    /// Those that make room next, the last one first, and since when they have had no call.
    chosen: Vec<(Quiet, Arc<Activity>)>,
    warned: Option<Instant>,
}

/// An open connection in the list. Removed when this is dropped.
#[derive(Debug)]
pub(super) struct Listed {
    open: Arc<OpenConnections>,
    number: u64,
    _place: Place,
}

/// The place of a connection.
pub(super) type Place = Option<OwnedSemaphorePermit>;

// === impl OpenConnections ===

impl OpenConnections {
    /// Up to `max` connections of `listener` at a time.
    pub(super) fn new(listener: &'static str, max: usize) -> Self {
        Self {
            listener,
            max,
            places: Arc::new(Semaphore::new(max)),
            state: Mutex::default(),
        }
    }

    /// Waits for a free place. Connections without a call make room for it, one after the other.
    pub(super) async fn place(&self) -> Place {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.warn(&format!(
            "the limit of {} connections is reached: those without a call are closed",
            self.max
        ));
        loop {
            self.close_one();
            let place = Arc::clone(&self.places).acquire_owned();
            if let Ok(place) = timeout(REPLACE_INTERVAL, place).await {
                // The semaphore is never closed.
                return place.ok();
            }
        }
    }

    /// Adds a connection to the list.
    pub(super) fn add(self: &Arc<Self>, activity: &Arc<Activity>, place: Place) -> Listed {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.connections.insert(number, Arc::clone(activity));
        Listed {
            open: Arc::clone(self),
            number,
            _place: place,
        }
    }

    /// Asks one connection to end: one that never had a call, or else the one that has been without a call for the longest
    /// time.
    pub(super) fn close_one(&self) {
        let mut state = self.lock();
        if state.chosen.is_empty() {
            state.choose();
        }
        while let Some((quiet, connection)) = state.chosen.pop() {
            if connection.quiet() == Some(quiet) {
                connection.replace();
                return;
            }
        }
    }

    /// Logs a warning, unless there has been one just now.
    pub(super) fn warn(&self, message: &str) {
        let mut state = self.lock();
        let is_due = state
            .warned
            .is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL);
        if is_due {
            state.warned = Some(Instant::now());
            tracing::warn!(listener = self.listener, "{message}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A std mutex: held for one pass over the list, never across an await.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Chooses the connections that make room next.
    fn choose(&mut self) {
        let connections = self.connections.values();
        let quiet = connections.filter_map(|activity| Some((activity.quiet()?, activity)));
        let mut quiet: Vec<_> = quiet.collect();
        if quiet.len() > CHOSEN {
            quiet.select_nth_unstable_by_key(CHOSEN, |(quiet, _)| *quiet);
            quiet.truncate(CHOSEN);
        }
        quiet.sort_unstable_by_key(|(quiet, _)| Reverse(*quiet));
        let chosen = quiet.into_iter();
        self.chosen = chosen
            .map(|(quiet, activity)| (quiet, Arc::clone(activity)))
            .collect();
    }
}

// === impl Listed ===

impl Drop for Listed {
    fn drop(&mut self) {
        self.open.lock().connections.remove(&self.number);
    }
}
