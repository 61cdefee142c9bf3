//! Whether there is room for another open upload.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{error::Result, state::ListingStore};

/// How often the open uploads are counted at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The room for open uploads, over all replicas. Each one counts for itself, so that together they can exceed the limit by
/// what the others create within [`INTERVAL`].
#[derive(Debug)]
pub(super) struct Room {
    max: u64,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    at: Option<Instant>,
    /// How many uploads were open at that time, and those that this process has created since.
    open: u64,
}

// === impl Room ===

impl Room {
    pub(super) fn new(max: u64) -> Self {
        Self {
            max,
            counted: Mutex::default(),
        }
    }

    /// Whether another upload may be created.
    pub(super) async fn has_room(&self, listing: &dyn ListingStore) -> Result<bool> {
        if self.begin_count() {
            let open = listing.count_live().await?;
            self.lock().open = open;
        }
        Ok(self.lock().open < self.max)
    }

    /// Notes that this process has created an upload.
    pub(super) fn note_created(&self) {
        self.lock().open += 1;
    }

    /// Whether the caller must count. Others go by the last count in the meantime.
    fn begin_count(&self) -> bool {
        let mut counted = self.lock();
        let is_old = counted.at.is_none_or(|at| at.elapsed() >= INTERVAL);
        if is_old {
            counted.at = Some(Instant::now());
        }
        is_old
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // A std mutex: held for a few instructions, never across an await.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::{
        error::Error,
        state::{Cursor, Entry, ListPage, ListQuery, Listing, Selection},
        upload::{Upload, UploadId},
    };

    /// An index of `live` uploads; `u64::MAX`: it is unavailable.
    #[derive(Debug, Default)]
    struct Index {
        live: AtomicU64,
        counts: AtomicU64,
    }

    #[async_trait]
    impl ListingStore for Index {
        async fn list(&self, _: &ListQuery) -> Result<ListPage> {
            unreachable!("the room only counts")
        }

        async fn count(&self, _: &Listing) -> Result<u64> {
            unreachable!("the room only counts live uploads")
        }

        async fn entries(&self, _: &Selection, _: Option<&Cursor>, _: usize) -> Result<Vec<Entry>> {
            unreachable!("the room only counts")
        }

        async fn count_entries(&self, _: &Selection) -> Result<u64> {
            unreachable!("the room only counts live uploads")
        }

        async fn summaries(&self, _: &[UploadId]) -> Result<Vec<Upload>> {
            unreachable!("the room only counts")
        }

        async fn count_live(&self) -> Result<u64> {
            self.counts.fetch_add(1, Ordering::Relaxed);
            match self.live.load(Ordering::Relaxed) {
                u64::MAX => Err(Error::state_unavailable("down")),
                live => Ok(live),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_are_counted_once_a_second_and_own_creates_at_once() {
        let (room, index) = (Room::new(3), Index::default());
        index.live.store(1, Ordering::Relaxed);
        for has_room in [true, true, false, false] {
            assert_eq!(room.has_room(&index).await.unwrap(), has_room);
            room.note_created();
        }
        assert_eq!(index.counts.load(Ordering::Relaxed), 1);
        tokio::time::advance(INTERVAL).await;
        assert!(room.has_room(&index).await.unwrap());
        index.live.store(3, Ordering::Relaxed);
        assert!(room.has_room(&index).await.unwrap());
        tokio::time::advance(INTERVAL).await;
        assert!(!room.has_room(&index).await.unwrap());
        assert_eq!(index.counts.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_that_fails_fails_one_create_and_is_repeated_after_a_second() {
        let (room, index) = (Room::new(3), Index::default());
        index.live.store(u64::MAX, Ordering::Relaxed);
        assert!(room.has_room(&index).await.unwrap_err().is_retryable());
        assert!(room.has_room(&index).await.unwrap());
        tokio::time::advance(INTERVAL).await;
        assert!(room.has_room(&index).await.is_err());
    }
}
