//! Notifies the streams of this process that their upload may have a new writer.
//!
//! A notification is a hint: it can be late, repeated or lost. The writer in the record decides.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::upload::{UploadId, WriterTag};

/// The latest notification: the new writer, or `None` if any notification may have been missed.
type Notice = Option<WriterTag>;

/// Forwards notifications from an adapter to the streams of this process. Clones share the same streams.
#[derive(Debug, Clone, Default)]
pub struct Takeovers(Arc<Mutex<HashMap<UploadId, watch::Sender<Notice>>>>);

/// Receives the takeovers of one upload, from its creation until it is dropped.
#[derive(Debug)]
pub struct TakeoverWatch {
    id: UploadId,
    takeovers: Takeovers,
    notices: watch::Receiver<Notice>,
}

// === impl Takeovers ===

impl Takeovers {
    /// Watches for takeovers of `id`.
    pub fn watch(&self, id: &UploadId) -> TakeoverWatch {
        let notices = self
            .lock()
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe();
        TakeoverWatch {
            id: id.clone(),
            takeovers: self.clone(),
            notices,
        }
    }

    /// Notifies the watchers of `id` that `writer` has taken it over.
    pub fn notify(&self, id: &UploadId, writer: WriterTag) {
        if let Some(notices) = self.lock().get(id) {
            notices.send_replace(Some(writer));
        }
    }

    /// Notifies all watchers that they may have missed a notification.
    pub fn notify_all(&self) {
        for notices in self.lock().values() {
            notices.send_replace(None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, watch::Sender<Notice>>> {
        // A std mutex: held for a few instructions, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl TakeoverWatch ===

impl TakeoverWatch {
    /// Waits until a writer other than `writer` may have taken over the upload. Can be cancelled and called again
    /// without missing a notification.
    pub async fn by_other_than(&mut self, writer: WriterTag) {
        loop {
            if self.notices.changed().await.is_err() {
                // Unreachable: the sender exists as long as a watcher does.
                pending::<()>().await;
            }
            if *self.notices.borrow_and_update() != Some(writer) {
                return;
            }
        }
    }
}

impl Drop for TakeoverWatch {
    fn drop(&mut self) {
        let mut watched = self.takeovers.lock();
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

    fn writer(bits: u32) -> WriterTag {
        WriterTag::from_bits(bits).unwrap()
    }

    #[tokio::test]
    async fn a_watcher_is_notified_of_other_writers_and_not_of_its_own() {
        let (takeovers, id) = (Takeovers::default(), UploadId::generate(None));
        let mut watch = takeovers.watch(&id);
        takeovers.notify(&UploadId::generate(None), writer(2));
        takeovers.notify(&id, writer(1));
        let mut notified = Box::pin(watch.by_other_than(writer(1)));
        assert!(poll!(notified.as_mut()).is_pending());
        takeovers.notify(&id, writer(2));
        notified.await;
        takeovers.notify_all();
        watch.by_other_than(writer(1)).await;
    }

    #[test]
    fn an_upload_without_watchers_is_removed() {
        let (takeovers, id) = (Takeovers::default(), UploadId::generate(None));
        let (first, second) = (takeovers.watch(&id), takeovers.watch(&id));
        drop(first);
        assert_eq!(takeovers.lock().len(), 1);
        drop(second);
        assert!(takeovers.lock().is_empty());
    }
}
