//! Who is told, in this process, that an upload may have a new writer.
//!
//! A notice is a hint: it may come late, twice or never. The writer in the record is the truth.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::upload::{UploadId, WriterTag};

/// The latest that was heard: the new writer, or that anybody may be.
type Notice = Option<WriterTag>;

/// Passes notices on from an adapter to the streams of this process; clones share their streams.
#[derive(Debug, Clone, Default)]
pub struct Takeovers(Arc<Mutex<HashMap<UploadId, watch::Sender<Notice>>>>);

/// Hears of the takeovers of one upload, from when it was made until it is dropped.
#[derive(Debug)]
pub struct TakeoverWatch {
    id: UploadId,
    takeovers: Takeovers,
    notices: watch::Receiver<Notice>,
}

// === impl Takeovers ===

impl Takeovers {
    /// Listens for takeovers of `id`.
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

    /// Tells who watches `id` that `writer` has taken it over.
    pub fn notify(&self, id: &UploadId, writer: WriterTag) {
        if let Some(notices) = self.lock().get(id) {
            notices.send_replace(Some(writer));
        }
    }

    /// Tells everybody that notices may have been missed.
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
    /// Waits until another than `writer` may have taken the upload over. Can be dropped and called again without missing
    /// anything.
    pub async fn by_another_than(&mut self, writer: WriterTag) {
        loop {
            if self.notices.changed().await.is_err() {
                // Cannot be: the sender stays as long as somebody watches.
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
    async fn who_watches_hears_of_others_and_not_of_itself() {
        let (takeovers, id) = (Takeovers::default(), UploadId::generate(None));
        let mut watch = takeovers.watch(&id);
        takeovers.notify(&UploadId::generate(None), writer(2));
        takeovers.notify(&id, writer(1));
        let mut heard = Box::pin(watch.by_another_than(writer(1)));
        assert!(poll!(heard.as_mut()).is_pending());
        takeovers.notify(&id, writer(2));
        heard.await;
        takeovers.notify_all();
        watch.by_another_than(writer(1)).await;
    }

    #[test]
    fn nothing_stays_of_those_who_no_longer_watch() {
        let (takeovers, id) = (Takeovers::default(), UploadId::generate(None));
        let (first, second) = (takeovers.watch(&id), takeovers.watch(&id));
        drop(first);
        assert_eq!(takeovers.lock().len(), 1);
        drop(second);
        assert!(takeovers.lock().is_empty());
    }
}
