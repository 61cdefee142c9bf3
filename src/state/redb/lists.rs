//! Lists and searches: few at a time, because they read much.

use std::sync::Arc;

use async_trait::async_trait;
use upload_gateway_core::{
    error::Result,
    state::{Cursor, Entry, ListPage, ListQuery, Listing, ListingStore, Selection},
    upload::{Upload, UploadId},
};

use super::{Redb, entries::Counted, tables::Snapshot};

// === impl Redb ===

impl Redb {
    /// As [`Self::read`], one at a time. Between two steps of a long call, others have their turn.
    async fn read_in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.page_turn).lock_owned().await;
        self.read(move |snapshot| {
            // Held until the work ends, even if the caller was cancelled.
            let _turn = turn;
            work(snapshot)
        })
        .await
    }
}

#[async_trait]
impl ListingStore for Redb {
    async fn list(&self, query: &ListQuery) -> Result<ListPage> {
        let query = query.clone();
        self.read_in_turn(move |snapshot| snapshot.page(&query))
            .await
    }

    async fn count(&self, listing: &Listing) -> Result<u64> {
        let listing = listing.clone();
        self.read(move |snapshot| snapshot.count(&listing)).await
    }

    async fn entries(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let (selection, after) = (selection.clone(), after.cloned());
        let search = self.searches.begin().await?;
        self.read(move |snapshot| {
            let entries = &snapshot.listings.entries;
            let read = entries.read(&selection, after.as_ref(), limit);
            search.end();
            read
        })
        .await
    }

    async fn count_entries(&self, selection: &Selection) -> Result<u64> {
        let mut counted = Counted::default();
        while !counted.is_all {
            let selection = selection.clone();
            let counting = self.read_in_turn(move |snapshot| {
                let entries = &snapshot.listings.entries;
                entries.count_more(&selection, counted)
            });
            counted = counting.await?;
        }
        Ok(counted.count)
    }

    async fn summaries(&self, ids: &[UploadId]) -> Result<Vec<Upload>> {
        let ids = ids.to_vec();
        self.read_in_turn(move |snapshot| snapshot.summaries(&ids))
            .await
    }

    async fn count_live(&self) -> Result<u64> {
        self.read(Snapshot::count_live).await
    }
}
