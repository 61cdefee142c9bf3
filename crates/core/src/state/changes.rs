//! Notifies the watchers of this process that a record may have changed. A notification only shortens the wait for the
//! next read.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::notices::{NoticeWatch, Notices};
use crate::upload::UploadId;

/// Forwards notifications from an adapter to the watchers of this process. Clones share the same watchers.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    notices: Notices<()>,
    is_connected: Arc<AtomicBool>,
}

/// Receives the changes of one record, from its creation until it is dropped.
#[derive(Debug)]
pub struct ChangeWatch {
    notices: NoticeWatch<()>,
    is_connected: Arc<AtomicBool>,
}

// === impl Changes ===

impl Changes {
    /// Watches the record of `id`.
    pub fn watch(&self, id: &UploadId) -> ChangeWatch {
        ChangeWatch {
            notices: self.notices.watch(id),
            is_connected: Arc::clone(&self.is_connected),
        }
    }

    /// Notifies the watchers of `id` that its record has changed.
    pub fn notify(&self, id: &UploadId) {
        self.notices.send(id, ());
    }

    /// Sets whether notifications can arrive. All watchers are notified, because they may have missed some.
    pub fn set_connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
        self.notices.send_all();
    }
}

// === impl ChangeWatch ===

impl ChangeWatch {
    /// Waits until the record may have changed. Can be cancelled and called again without missing a notification.
    pub async fn changed(&mut self) {
        self.notices.next().await;
    }

    /// Whether notifications can arrive at present.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_is_notified_of_changes_and_of_a_new_connection() {
        let (changes, id) = (Changes::default(), UploadId::generate(None));
        let mut watch = changes.watch(&id);
        changes.notify(&id);
        watch.changed().await;
        assert!(!watch.is_connected());
        changes.set_connected(true);
        watch.changed().await;
        assert!(watch.is_connected());
    }
}
