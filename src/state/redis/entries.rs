//! The indexes of listings: sorted sets with equal scores, whose members are whole entries (`entry.rs`), ordered by their
//! bytes. So one command reads the entries that a search looks at, and the server does no work for its filters.
//!
//! All indexes of a listing are in one slot, and one script changes them together. They are written after the record, so
//! they can be out of date; the sweeper removes entries without a record (`due.rs`). The entry in the index of a phase has
//! everything that the keys of the other indexes are made of.

use futures::future::try_join_all;
use upload_gateway_core::{
    error::{Error, Result},
    state::{self, Cursor, Entry, Index, Listing, Selection},
    upload::{Owner, Phase, Upload},
};

use super::{Redis, record::removal_time, scripts::SCRIPTS};
use crate::state::entry;

// === impl Redis ===

impl Redis {
    fn index_key(&self, listing: &Listing, index_name: &str) -> String {
        let name = entry::listing_name(listing);
        // The braces choose the slot, so the name must have none.
        let name = name
            .replace('%', "%25")
            .replace('{', "%7B")
            .replace('}', "%7D");
        self.key(&format!("index:{{{name}}}:{index_name}"))
    }

    /// The keys of an index.
    fn index_keys<'a>(
        &'a self,
        listing: &'a Listing,
        index: &Index,
    ) -> impl Iterator<Item = String> + use<'a> {
        let names = entry::index_names(index).into_iter();
        names.map(move |name| self.index_key(listing, &name))
    }

    /// Sets the entries of the upload in the indexes of its listings, or removes them if its file is deleted. Returns whether that
    /// changed any.
    pub(super) async fn set_entries(&self, upload: &Upload) -> Result<bool> {
        let entry = Entry::of(upload);
        let is_listed = upload.phase != Phase::Deleting;
        let removal = removal_time(upload);
        let set = |listing| self.write_entries(listing, &entry, is_listed, removal);
        let changed = try_join_all(state::listings(&upload.owner).map(set)).await?;
        Ok(changed.contains(&true))
    }

    /// Removes the entries of the upload from the indexes of the listings of its owner.
    pub(super) async fn remove_entries(&self, upload: &Upload) -> Result<()> {
        let entry = Entry::of(upload);
        let remove = |listing| self.write_entries(listing, &entry, false, 0);
        try_join_all(state::listings(&upload.owner).map(remove))
            .await
            .map(drop)
    }

    /// Removes the entries of an upload without a record.
    pub(super) async fn remove_lost_entries(&self, owner: &Owner, at: &Cursor) -> Result<()> {
        for listing in state::listings(owner) {
            let order = entry::order_of(None, at.created_at, at.id.to_bytes());
            let first = [b"[", order.as_slice()].concat();
            let end = [b"(", order.as_slice(), b"\xff"].concat();
            let found = self.index_keys(&listing, &Index::All).map(|key| {
                let range = redis::cmd("ZRANGE")
                    .arg((key, &first, &end, "BYLEX"))
                    .to_owned();
                async move { self.link.command::<Vec<Vec<u8>>>(&range).await }
            });
            let members = try_join_all(found).await?.concat();
            for lost in members
                .iter()
                .filter_map(|member| entry::read(member, false))
            {
                self.write_entries(listing.clone(), &lost, false, 0).await?;
            }
        }
        Ok(())
    }

    async fn write_entries(
        &self,
        listing: Listing,
        entry: &Entry,
        is_listed: bool,
        removal: u64,
    ) -> Result<bool> {
        let mut invocation = SCRIPTS.entries.prepare_invoke();
        invocation.arg(removal);
        let mut set = |index: &Index, is_listed: bool| {
            let order = entry::order(entry, index);
            let whole = match is_listed {
                true => [order.as_slice(), &entry::value(entry, index)].concat(),
                false => Vec::new(),
            };
            for key in self.index_keys(&listing, index) {
                invocation.key(key);
                invocation.arg(&order).arg(&whole);
            }
        };
        for index in entry.indexes() {
            set(&index, is_listed);
        }
        for index in entry.other_indexes() {
            set(&index, false);
        }
        self.link.script(&invocation).await
    }

    /// See [`ListingStore::entries`](upload_gateway_core::state::ListingStore::entries).
    pub(super) async fn read_entries(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let (first, end) = lexical(selection, after);
        let keys = self.index_keys(&selection.listing, &selection.index);
        let ranges = keys.map(|key| {
            let range = redis::cmd("ZRANGE")
                .arg((key, &first, &end, "BYLEX"))
                .arg(("LIMIT", 0, limit))
                .to_owned();
            async move { self.pages.link.command::<Vec<Vec<u8>>>(&range).await }
        });
        let search = self.pages.searches.begin().await?;
        // Sent together: one round trip.
        let found = try_join_all(ranges).await?;
        let is_by_name = selection.index.is_by_name();
        let members = entry::merge(found, limit);
        let read = |member: &Vec<u8>| entry::read(member, is_by_name);
        let entries = members.iter().map(read).collect::<Option<_>>();
        search.end();
        entries.ok_or_else(|| Error::fault("redis holds an unreadable entry of an index"))
    }

    /// See [`ListingStore::count_entries`](upload_gateway_core::state::ListingStore::count_entries).
    pub(super) async fn count_selected(&self, selection: &Selection) -> Result<u64> {
        let (first, end) = lexical(selection, None);
        let keys = self.index_keys(&selection.listing, &selection.index);
        let counts = keys.map(|key| {
            let count = redis::cmd("ZLEXCOUNT").arg((key, &first, &end)).to_owned();
            async move { self.link.command::<u64>(&count).await }
        });
        Ok(try_join_all(counts).await?.iter().sum())
    }
}

/// The range of a selection as arguments of a command.
fn lexical(selection: &Selection, after: Option<&Cursor>) -> (Vec<u8>, Vec<u8>) {
    let (first, end) = entry::range(selection, after);
    let end = end.map_or_else(|| b"+".to_vec(), |end| [b"(", end.as_slice()].concat());
    ([b"[", first.as_slice()].concat(), end)
}
