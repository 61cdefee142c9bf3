//! The files that this command sends now. One that is named twice is sent once, and then found complete.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The keys of the files that are being sent.
#[derive(Debug, Default)]
pub(super) struct Running {
    keys: Mutex<HashSet<String>>,
    ended: Notify,
}

/// A file that is being sent, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    running: &'a Running,
    key: String,
}

// === impl Running ===

impl Running {
    /// Waits until no other file with this key is being sent.
    pub(super) async fn begin(&self, key: String) -> Turn<'_> {
        loop {
            // Before the check: a file that ends after it is noticed.
            let ended = self.ended.notified();
            if self.keys().insert(key.clone()) {
                return Turn { running: self, key };
            }
            ended.await;
        }
    }

    fn keys(&self) -> MutexGuard<'_, HashSet<String>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.running.keys().remove(&self.key);
        self.running.ended.notify_waiters();
    }
}
