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

/// How many entries are counted before other calls have a turn: some milliseconds.
const COUNTED_AT_ONCE: usize = 10_000;

/// The values of entries (`entry.rs`), by listing, index and order.
const ENTRIES: TableDefinition<'_, Key<'static>, &[u8]> = TableDefinition::new("entries");

/// How many entries an index has, by listing and index.
const COUNTS: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("entry_counts");

type Key<'a> = (&'a str, &'a str, &'a [u8]);

/// How far the entries of a selection are counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// How many there are so far.
    pub(super) count: u64,
    /// Whether these are all.
    pub(super) is_all: bool,
    /// How many of the indexes that it is made of are counted.
    indexes: usize,
    /// The first order of the next one that is not counted; `None`: its first.
    next: Option<Vec<u8>>,
}

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
        let without = entry.other_indexes().map(|index| (index, false));
        let indexes: Vec<_> = with.chain(without).collect();
        for listing in state::listings(&upload.owner).map(|one| entry::listing_name(&one)) {
            for (index, is_listed) in &indexes {
                let (order, value) = (entry::order(&entry, index), entry::value(&entry, index));
                for name in entry::index_names(index) {
                    let key = (listing.as_str(), name.as_str(), order.as_slice());
                    self.write_one(key, &value, *is_listed)?;
                }
            }
        }
        Ok(())
    }

    fn write_one(&mut self, key: Key<'_>, value: &[u8], is_listed: bool) -> Result<()> {
        let was_listed = match is_listed {
            true => self.entries.insert(key, value),
            false => self.entries.remove(key),
        };
        let was_listed = was_listed.map_err(internal)?.is_some();
        match was_listed == is_listed {
            true => Ok(()),
            false => self.count((key.0, key.1), is_listed),
        }
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
        let listing = entry::listing_name(listing);
        let names = entry::index_names(index).into_iter();
        let counts = names.map(|name| {
            let count = self.counts.get((listing.as_str(), name.as_str()));
            Ok(count.map_err(internal)?.map_or(0, |count| count.value()))
        });
        counts.sum()
    }

    /// See [`ListingStore::entries`](upload_gateway_core::state::ListingStore::entries).
    pub(super) fn read(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let (first, end) = entry::range(selection, after);
        let listing = entry::listing_name(&selection.listing);
        let mut found = Vec::new();
        for name in entry::index_names(&selection.index) {
            let first = (listing.as_str(), name.as_str(), first.as_slice());
            let mut members = Vec::new();
            self.each(first, end.as_deref(), limit, |order, value| {
                members.push([order, value].concat());
            })?;
            found.push(members);
        }
        let is_by_name = selection.index.is_by_name();
        let read = |member: Vec<u8>| {
            let read = entry::read(&member, is_by_name);
            read.ok_or_else(|| Error::fault("the state file holds an unreadable entry"))
        };
        entry::merge(found, limit).into_iter().map(read).collect()
    }

    /// Counts some more entries of a selection: at once those of whole indexes, else at most [`COUNTED_AT_ONCE`].
    pub(super) fn count_more(
        &self,
        selection: &Selection,
        mut counted: Counted,
    ) -> Result<Counted> {
        if !selection.index.is_by_name() && selection.created == Created::default() {
            counted.count = self.count_index(&selection.listing, &selection.index)?;
            counted.is_all = true;
            return Ok(counted);
        }
        let names = entry::index_names(&selection.index);
        let Some(name) = names.get(counted.indexes) else {
            counted.is_all = true;
            return Ok(counted);
        };
        let (first, end) = entry::range(selection, None);
        let first = counted.next.take().unwrap_or(first);
        let listing = entry::listing_name(&selection.listing);
        let key = (listing.as_str(), name.as_str(), first.as_slice());
        let (mut more, mut last) = (0, Vec::new());
        self.each(key, end.as_deref(), COUNTED_AT_ONCE, |order, _| {
            more += 1;
            if more == COUNTED_AT_ONCE {
                last = order.to_vec();
            }
        })?;
        counted.count += more as u64;
        match more < COUNTED_AT_ONCE {
            true => counted.indexes += 1,
            false => counted.next = Some(entry::following(last)),
        }
        Ok(counted)
    }

    /// Calls `read` with order and value of each entry of one index from `first` and before `end`, at most `limit`.
    fn each(
        &self,
        first: Key<'_>,
        end: Option<&[u8]>,
        limit: usize,
        mut read: impl FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let entries = self.entries.range::<Key<'_>>(first..).map_err(internal)?;
        for found in entries.take(limit) {
            let (key, value) = found.map_err(internal)?;
            let (listing, name, order) = key.value();
            if (listing, name) != (first.0, first.1) || end.is_some_and(|end| order >= end) {
                break;
            }
            read(order, value.value());
        }
        Ok(())
    }
}
