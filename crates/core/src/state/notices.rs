//! Notices about single uploads, forwarded to the watchers of this process.
//!
//! A notice is a hint: it can be late, repeated or lost.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::upload::UploadId;

/// The watchers of each upload, and the latest notice for them. Clones share the same watchers.
#[derive(Debug)]
pub(super) struct Notices<N>(Arc<Mutex<HashMap<UploadId, watch::Sender<N>>>>);

/// Receives the notices about one upload, from its creation until it is dropped.
#[derive(Debug)]
pub(super) struct NoticeWatch<N> {
    id: UploadId,
    notices: Notices<N>,
    received: watch::Receiver<N>,
}

// === impl Notices ===

impl<N: Clone + Default> Notices<N> {
    /// Watches for notices about `id`.
    pub(super) fn watch(&self, id: &UploadId) -> NoticeWatch<N> {
        let received = self
            .lock()
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(N::default()))
            .subscribe();
        NoticeWatch {
            id: id.clone(),
            notices: self.clone(),
            received,
        }
    }

    /// Sends `notice` to the watchers of `id`.
    pub(super) fn send(&self, id: &UploadId, notice: N) {
        if let Some(watchers) = self.lock().get(id) {
            watchers.send_replace(notice);
        }
    }

    /// Sends the default notice to all watchers: they may have missed others.
    pub(super) fn send_all(&self) {
        for watchers in self.lock().values() {
            watchers.send_replace(N::default());
        }
    }
}

impl<N> Notices<N> {
    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, watch::Sender<N>>> {
        // A std mutex: held for a few instructions, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N> Clone for Notices<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N> Default for Notices<N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

// === impl NoticeWatch ===

impl<N: Clone + Send + Sync> NoticeWatch<N> {
    /// The next notice. Can be cancelled and called again without missing one.
    pub(super) async fn next(&mut self) -> N {
        if self.received.changed().await.is_err() {
            // Unreachable: the sender exists as long as a watcher does.
            pending::<()>().await;
        }
        self.received.borrow_and_update().clone()
    }
}

impl<N> Drop for NoticeWatch<N> {
    fn drop(&mut self) {
        let mut watched = self.notices.lock();
        let is_last = watched
            .get(&self.id)
            .is_some_and(|watchers| watchers.receiver_count() == 1);
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
    async fn a_watcher_receives_the_notices_about_its_own_upload() {
        let (notices, id) = (Notices::default(), UploadId::generate(None));
        let mut watch = notices.watch(&id);
        notices.send(&UploadId::generate(None), Some(1));
        assert!(poll!(Box::pin(watch.next())).is_pending());
        notices.send(&id, Some(2));
        assert_eq!(watch.next().await, Some(2));
        notices.send_all();
        assert_eq!(watch.next().await, None);
    }

    #[test]
    fn an_upload_without_watchers_is_removed() {
        let (notices, id) = (Notices::<()>::default(), UploadId::generate(None));
        let (first, second) = (notices.watch(&id), notices.watch(&id));
        drop(first);
        assert_eq!(notices.lock().len(), 1);
        drop(second);
        assert!(notices.lock().is_empty());
    }
}
