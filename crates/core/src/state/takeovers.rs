//! Notifies the streams of this process that their upload may have a new writer. The writer in the record decides.

use super::notices::{NoticeWatch, Notices};
use crate::upload::{UploadId, WriterTag};

/// Forwards notifications from an adapter to the streams of this process. Clones share the same streams.
///
/// A notice is the new writer, or `None` if any notification may have been missed.
#[derive(Debug, Clone, Default)]
pub struct Takeovers(Notices<Option<WriterTag>>);

/// Receives the takeovers of one upload, from its creation until it is dropped.
#[derive(Debug)]
pub struct TakeoverWatch(NoticeWatch<Option<WriterTag>>);

// === impl Takeovers ===

impl Takeovers {
    /// Watches for takeovers of `id`.
    pub fn watch(&self, id: &UploadId) -> TakeoverWatch {
        TakeoverWatch(self.0.watch(id))
    }

    /// Notifies the watchers of `id` that `writer` has taken it over.
    pub fn notify(&self, id: &UploadId, writer: WriterTag) {
        self.0.send(id, Some(writer));
    }

    /// Notifies all watchers that they may have missed a notification.
    pub fn notify_all(&self) {
        self.0.send_all();
    }
}

// === impl TakeoverWatch ===

impl TakeoverWatch {
    /// Waits until a writer other than `writer` may have taken over the upload. Can be cancelled and called again
    /// without missing a notification.
    pub async fn by_other_than(&mut self, writer: WriterTag) {
        while self.0.next().await == Some(writer) {}
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
}
