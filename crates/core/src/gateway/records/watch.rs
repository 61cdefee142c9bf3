//! Watches records. One task per watched upload reads its summary for all watchers of this process.
//!
//! A notice of a change shortens the wait for the next read, and nothing else: without notices, watchers see a change
//! at the next regular read.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};

use super::is_visible;
use crate::{
    error::{Error, Result},
    gateway::drain::Drain,
    state::RecordStore,
    upload::{Upload, UploadId},
};

/// The shortest time between two reads of one record.
const SHORTEST: Duration = Duration::from_millis(250);

/// The time between two reads if no notice arrives.
const LONGEST: Duration = Duration::from_secs(5);

/// The time between two reads while the state store cannot deliver notices.
const WITHOUT_NOTICES: Duration = Duration::from_secs(1);

/// The records that are watched in this process.
#[derive(Debug)]
pub(super) struct Watches {
    records: Arc<dyn RecordStore>,
    drain: Arc<Drain>,
    readers: Mutex<HashMap<UploadId, Arc<Reader>>>,
}

/// Watches one record, until it is dropped.
#[derive(Debug)]
pub struct RecordWatch {
    id: UploadId,
    watches: Arc<Watches>,
    reader: Arc<Reader>,
    reads: watch::Receiver<Option<Read>>,
    /// Reads that began before this watch are not shown: they may be older than what the watcher knows.
    first: u64,
}

/// The task that reads one record.
#[derive(Debug)]
struct Reader {
    reads: watch::Sender<Option<Read>>,
    /// How many reads have begun.
    begun: AtomicU64,
    /// A new watcher does not wait for the next regular read.
    wake: Notify,
}

#[derive(Debug, Clone)]
struct Read {
    number: u64,
    found: Option<Arc<Upload>>,
}

// === impl Watches ===

impl Watches {
    pub(super) fn new(records: Arc<dyn RecordStore>, drain: Arc<Drain>) -> Arc<Self> {
        Arc::new(Self {
            records,
            drain,
            readers: Mutex::default(),
        })
    }

    /// Watches a record. The first watcher starts the task that reads it.
    pub(super) fn watch(self: &Arc<Self>, id: &UploadId) -> RecordWatch {
        // A std mutex: held for a few instructions, never across an await.
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match readers.get(id) {
            Some(reader) => {
                reader.wake.notify_one();
                Arc::clone(reader)
            }
            None => {
                let reader = Arc::new(Reader {
                    reads: watch::Sender::new(None),
                    begun: AtomicU64::new(0),
                    wake: Notify::new(),
                });
                readers.insert(id.clone(), Arc::clone(&reader));
                tokio::spawn(Arc::clone(self).read(id.clone(), Arc::clone(&reader)));
                reader
            }
        };
        RecordWatch {
            id: id.clone(),
            watches: Arc::clone(self),
            reads: reader.reads.subscribe(),
            first: reader.begun.load(Ordering::SeqCst),
            reader,
        }
    }

    /// Reads the record as long as it has watchers. A failure ends the task: each watcher then reads the record itself.
    async fn read(self: Arc<Self>, id: UploadId, reader: Arc<Reader>) {
        let mut notices = self.records.watch_changes(&id);
        loop {
            let begun = Instant::now();
            let number = reader.begun.fetch_add(1, Ordering::SeqCst);
            match self.records.observe(&id).await {
                Ok(found) => {
                    let found = found.map(Arc::new);
                    reader.reads.send_replace(Some(Read { number, found }));
                }
                Err(error) => {
                    tracing::debug!(upload_id = %id, %error, "stop watching a record that cannot be read");
                    self.remove(&id, &reader, true);
                    return;
                }
            }
            let longest = match notices.is_connected() {
                true => LONGEST,
                false => WITHOUT_NOTICES,
            };
            let wait = async {
                sleep_until(begun + SHORTEST).await;
                let next = async {
                    tokio::select! {
                        () = notices.changed() => {}
                        () = reader.wake.notified() => {}
                    }
                };
                // Late is not an error: it is the regular read.
                let _ = timeout_at(begun + longest, next).await;
            };
            tokio::select! {
                () = wait => {}
                () = reader.reads.closed() => {}
            }
            if self.remove(&id, &reader, false) {
                return;
            }
        }
    }

    /// Removes a reader that has failed or has no watchers. Returns whether it was removed.
    fn remove(&self, id: &UploadId, reader: &Arc<Reader>, has_failed: bool) -> bool {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_removed = has_failed || reader.reads.receiver_count() == 0;
        if is_removed {
            readers.remove(id);
            // Wakes the watchers: there is no further read.
            reader.begun.store(u64::MAX, Ordering::SeqCst);
            reader.reads.send_replace(None);
        }
        is_removed
    }
}

// === impl RecordWatch ===

impl RecordWatch {
    /// The next summary of the record that is read; `None` if there is no record. The first one is read after the watch
    /// began. Can be cancelled and called again.
    ///
    /// # Errors
    /// `Unavailable` when the gateway starts to drain; the error of a record that cannot be read.
    pub async fn next(&mut self) -> Result<Option<Arc<Upload>>> {
        loop {
            tokio::select! {
                changed = self.reads.changed() => {
                    changed.map_err(|closed| Error::internal("watch a record", closed))?;
                }
                error = self.watches.drain.begun() => return Err(error),
            }
            let read = self.reads.borrow_and_update().clone();
            match read {
                Some(read) if read.number >= self.first => {
                    return Ok(read.found.filter(|upload| is_visible(upload)));
                }
                Some(_) => {}
                None if self.reader.begun.load(Ordering::SeqCst) == u64::MAX => {
                    // The reader has failed. Either this read fails, too, or watching can begin again.
                    let found = self.watches.records.summary(&self.id).await?;
                    *self = self.watches.watch(&self.id);
                    return Ok(found.filter(is_visible).map(Arc::new));
                }
                None => {}
            }
        }
    }
}
