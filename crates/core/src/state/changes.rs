//! Notifies the watchers of this process that a record may have changed.
//!
//! A notification is a hint: it can be late, repeated or lost. It only shortens the wait for the next read.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use crate::upload::UploadId;

/// Forwards notifications from an adapter to the watchers of this process. Clones share the same watchers.
#[derive(Debug, Clone, Default)]
pub struct Changes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    watched: Mutex<HashMap<UploadId, watch::Sender<()>>>,
    is_connected: AtomicBool,
}

/// Receives the changes of one record, from its creation until it is dropped.
#[derive(Debug)]
pub struct ChangeWatch {
    id: UploadId,
    changes: Changes,
    notices: watch::Receiver<()>,
}

// === impl Changes ===

impl Changes {
    /// Watches the record of `id`.
    pub fn watch(&self, id: &UploadId) -> ChangeWatch {
        let notices = self
            .lock()
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        ChangeWatch {
            id: id.clone(),
            changes: self.clone(),
            notices,
        }
    }

    /// Notifies the watchers of `id` that its record has changed.
    pub fn notify(&self, id: &UploadId) {
        if let Some(notices) = self.lock().get(id) {
            notices.send_replace(());
        }
    }

    /// Sets whether notifications can arrive. All watchers are notified, because they may have missed some.
    pub fn set_connected(&self, is_connected: bool) {
        self.0.is_connected.store(is_connected, Ordering::Relaxed);
        for notices in self.lock().values() {
            notices.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, watch::Sender<()>>> {
        // A std mutex: held for a few instructions, never across an await.
        self.0
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ChangeWatch ===

impl ChangeWatch {
    /// Waits until the record may have changed. Can be cancelled and called again without missing a notification.
    pub async fn changed(&mut self) {
        if self.notices.changed().await.is_err() {
            // Unreachable: the sender exists as long as a watcher does.
            pending::<()>().await;
        }
    }

    /// Whether notifications can arrive at present.
    pub fn is_connected(&self) -> bool {
        self.changes.0.is_connected.load(Ordering::Relaxed)
    }
}

impl Drop for ChangeWatch {
    fn drop(&mut self) {
        let mut watched = self.changes.lock();
        let is_last = watched
            .get(&self.id)
            .is_some_and(|notices| notices.receiver_count() == 1);
        if is_last {
            watched.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_watcher_is_notified_of_its_own_record_and_of_a_new_connection() {
        let (changes, id) = (Changes::default(), UploadId::generate(None));
        let mut watch = changes.watch(&id);
        changes.notify(&UploadId::generate(None));
        assert!(poll!(Box::pin(watch.changed())).is_pending());
        changes.notify(&id);
        watch.changed().await;
        assert!(!watch.is_connected());
        changes.set_connected(true);
        watch.changed().await;
        assert!(watch.is_connected());
    }

    #[test]
    fn a_record_without_watchers_is_removed() {
        let (changes, id) = (Changes::default(), UploadId::generate(None));
        let (first, second) = (changes.watch(&id), changes.watch(&id));
        drop(first);
        assert_eq!(changes.lock().len(), 1);
        drop(second);
        assert!(changes.lock().is_empty());
    }
}
