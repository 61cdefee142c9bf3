//! The table of the indexes of listings.

use ::redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use upload_gateway_core::{
    error::{Error, Result},
    state::{self, Created, Cursor, Entry, Index, Listing, Selection},
    upload::Upload,
};

use super::failure::internal;
use crate::state::entry;

/// The values of entries (`entry.rs`), by listing, index and order.
const ENTRIES: TableDefinition<'_, Key<'static>, &[u8]> = TableDefinition::new("entries");

/// How many entries an index has, by listing and index.
const COUNTS: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("entry_counts");

type Key<'a> = (&'a str, &'a str, &'a [u8]);

/// The tables in one write transaction.
pub(super) struct Entries<'a> {
    entries: Table<'a, Key<'static>, &'static [u8]>,
    counts: Table<'a, (&'static str, &'static str), u64>,
}

/// The tables for reading, as of one moment.
pub(super) struct EntriesRead {
    entries: ReadOnlyTable<Key<'static>, &'static [u8]>,
    counts: ReadOnlyTable<(&'static str, &'static str), u64>,
}

// === impl Entries ===

impl<'a> Entries<'a> {
    /// Opens the tables, and creates those that do not exist yet.
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self> {
        Ok(Self {
            entries: transaction.open_table(ENTRIES).map_err(internal)?,
            counts: transaction.open_table(COUNTS).map_err(internal)?,
        })
    }

    /// Sets the entries of the upload in all indexes.
    pub(super) fn set(&mut self, upload: &Upload) -> Result<()> {
        self.write(upload, true)
    }

    /// Removes the entries of the upload from all indexes.
    pub(super) fn remove(&mut self, upload: &Upload) -> Result<()> {
        self.write(upload, false)
    }

    fn write(&mut self, upload: &Upload, is_listed: bool) -> Result<()> {
        let entry = Entry::of(upload);
        let with = entry.indexes().map(|index| (index, is_listed));
        let without = entry::other_indexes(&entry).map(|index| (index, false));
        let indexes: Vec<_> = with.chain(without).collect();
        for listing in state::listings(&upload.owner).map(|one| entry::listing_name(&one)) {
            for (index, is_listed) in &indexes {
                let (name, order) = (entry::index_name(index), entry::order(&entry, index));
                let key = (listing.as_str(), &*name, order.as_slice());
                let value = entry::value(&entry, index);
                let was_listed = match is_listed {
                    true => self.entries.insert(key, value.as_slice()),
                    false => self.entries.remove(key),
                };
                let was_listed = was_listed.map_err(internal)?.is_some();
                if was_listed != *is_listed {
                    self.count((&listing, &name), *is_listed)?;
                }
            }
        }
        Ok(())
    }

    /// Counts an entry that was added or removed.
    fn count(&mut self, index: (&str, &str), is_listed: bool) -> Result<()> {
        let count = self.counts.get(index).map_err(internal)?;
        let count = count.map_or(0, |count| count.value());
        match (is_listed, count) {
            (true, _) => self.counts.insert(index, count.saturating_add(1)),
            (false, 0 | 1) => self.counts.remove(index),
            (false, _) => self.counts.insert(index, count - 1),
        }
        .map(drop)
        .map_err(internal)
    }
}

// === impl EntriesRead ===

impl EntriesRead {
    /// Opens the tables, which [`Entries::open`] has created.
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self> {
        Ok(Self {
            entries: transaction.open_table(ENTRIES).map_err(internal)?,
            counts: transaction.open_table(COUNTS).map_err(internal)?,
        })
    }

    /// How many uploads a listing has.
    pub(super) fn count_all(&self, listing: &Listing) -> Result<u64> {
        self.count_index(listing, &Index::All)
    }

    fn count_index(&self, listing: &Listing, index: &Index) -> Result<u64> {
        let (listing, index) = (entry::listing_name(listing), entry::index_name(index));
        let count = self.counts.get((listing.as_str(), &*index));
        Ok(count.map_err(internal)?.map_or(0, |count| count.value()))
    }

    /// See [`ListingStore::entries`](upload_gateway_core::state::ListingStore::entries).
    pub(super) fn read(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let is_by_name = selection.index.is_by_name();
        let mut entries = Vec::new();
        self.each(selection, after, limit, |order, value| {
            let read = entry::read(&[order, value].concat(), is_by_name);
            let read = read.ok_or_else(|| Error::fault("the state file holds an unreadable entry"));
            entries.push(read?);
            Ok(())
        })?;
        Ok(entries)
    }

    /// See [`ListingStore::count_entries`](upload_gateway_core::state::ListingStore::count_entries).
    pub(super) fn count(&self, selection: &Selection) -> Result<u64> {
        if !selection.index.is_by_name() && selection.created == Created::default() {
            return self.count_index(&selection.listing, &selection.index);
        }
        let mut count = 0;
        self.each(selection, None, usize::MAX, |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Calls `read` with order and value of each entry, at most `limit`.
    fn each(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let listing = entry::listing_name(&selection.listing);
        let index = entry::index_name(&selection.index);
        let (first, end) = entry::range(selection, after);
        let first = (listing.as_str(), &*index, first.as_slice());
        let entries = self.entries.range::<Key<'_>>(first..).map_err(internal)?;
        for found in entries.take(limit) {
            let (key, value) = found.map_err(internal)?;
            let (of, name, order) = key.value();
            let is_past = end.as_ref().is_some_and(|end| order >= end.as_slice());
            if (of, name) != (listing.as_str(), &*index) || is_past {
                break;
            }
            read(order, value.value())?;
        }
        Ok(())
    }
}
