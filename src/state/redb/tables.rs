//! The tables of the state file, and the reads and writes of several tables.

use std::ops::Bound;

use ::redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    error::{Error, Result},
    state::{ListPage, ListQuery, Listing, removed_at},
    upload::{Claim, Claims, Fingerprint, Part, Parts, Phase, Secret, Timestamp, Upload, UploadId},
};

use super::{
    failure::internal,
    listing::{Listings, ListingsRead},
    parts::{NumberKey, PartTables, Slots, SlotsRead, Texts, TextsRead, all_numbers, unreadable},
    record::Record,
};
use crate::state::slot::{self, ClaimSlot, PartSlot};

/// [`Record`]s as JSON, by upload id.
const RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("records");
/// The slots of parts (`slot.rs`), by upload id and number.
const PARTS: TableDefinition<'_, NumberKey<'static>, &PartSlot> = TableDefinition::new("parts");
/// The receipts that a slot has no room for, by upload id and part number.
const RECEIPTS: TableDefinition<'_, NumberKey<'static>, &str> = TableDefinition::new("receipts");
/// The states of the file's digest at the end of parts, by upload id and part number.
const DIGESTS: TableDefinition<'_, NumberKey<'static>, &str> = TableDefinition::new("digests");
/// The slots of [`Claim`]s (`slot.rs`), by upload id and number.
const CLAIMS: TableDefinition<'_, NumberKey<'static>, &'static ClaimSlot> =
    TableDefinition::new("claims");
/// The id of the live upload, by fingerprint.
const FINGERPRINTS: TableDefinition<'_, &str, &str> = TableDefinition::new("fingerprints");
/// The uploads that are due, by time and id. A hint: parts and claims, which postpone the end of an upload, do not
/// change its entry; reading the entry corrects it.
const DUE: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("due");
/// The records by time of removal and id. A hint: a record that changed since is removed later.
const REMOVALS: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("removals");
/// The secret (`secret`), the notes ([`Note`](upload_gateway_core::state::Note)), what is indexed ([`INDEXED`]), the leases (`lease:<name>`), and the time of the last check (`checked_at`).
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// The key of the id after which records are not in the indexes of listings yet: see [`Tables::index_more`]. Its number changes with
/// the indexes.
const INDEXED: &str = "indexed:2";

/// Sorts after every upload id.
const LAST_ID: &str = "~";

/// All tables in one write transaction.
pub(super) struct Tables<'a> {
    records: Table<'a, &'static str, &'static str>,
    pub(super) parts: PartTables<Slots<'a>, Texts<'a>>,
    claims: Table<'a, NumberKey<'static>, &'static ClaimSlot>,
    fingerprints: Table<'a, &'static str, &'static str>,
    pub(super) listings: Listings<'a>,
    pub(super) due: Table<'a, (u64, &'static str), ()>,
    removals: Table<'a, (u64, &'static str), ()>,
    pub(super) facts: Table<'a, &'static str, &'static [u8]>,
}

/// The tables for reading, as of one moment.
pub(super) struct Snapshot {
    records: ReadOnlyTable<&'static str, &'static str>,
    parts: PartTables<SlotsRead, TextsRead>,
    claims: ReadOnlyTable<NumberKey<'static>, &'static ClaimSlot>,
    pub(super) listings: ListingsRead,
    fingerprints: ReadOnlyTable<&'static str, &'static str>,
    facts: ReadOnlyTable<&'static str, &'static [u8]>,
}

// === impl Tables ===

impl<'a> Tables<'a> {
    /// Opens all tables, and creates those that do not exist yet.
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self> {
        Ok(Self {
            records: transaction.open_table(RECORDS).map_err(internal)?,
            parts: PartTables {
                slots: transaction.open_table(PARTS).map_err(internal)?,
                receipts: transaction.open_table(RECEIPTS).map_err(internal)?,
                digests: transaction.open_table(DIGESTS).map_err(internal)?,
            },
            claims: transaction.open_table(CLAIMS).map_err(internal)?,
            fingerprints: transaction.open_table(FINGERPRINTS).map_err(internal)?,
            listings: Listings::open(transaction)?,
            due: transaction.open_table(DUE).map_err(internal)?,
            removals: transaction.open_table(REMOVALS).map_err(internal)?,
            facts: transaction.open_table(FACTS).map_err(internal)?,
        })
    }

    pub(super) fn record(&self, id: &UploadId) -> Result<Option<Record>> {
        record(&self.records, id.as_str())
    }

    /// The upload with all its parts and claims.
    pub(super) fn whole(&self, record: Record) -> Result<Upload> {
        whole(record, &self.parts, &self.claims)
    }

    /// The upload without claims, and of its parts only the last committed one and those of `numbers`.
    pub(super) fn summary(
        &self,
        record: Record,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Result<Upload> {
        summary(record, &self.parts, numbers)
    }

    /// The upload that holds the fingerprint.
    pub(super) fn holder(&self, fingerprint: &Fingerprint) -> Result<Option<Upload>> {
        let holder = self
            .fingerprints
            .get(fingerprint.as_str())
            .map_err(internal)?;
        let Some(holder) = holder else {
            return Ok(None);
        };
        let record = record(&self.records, holder.value())?;
        record.map(|record| self.whole(record)).transpose()
    }

    pub(super) fn hold(&mut self, fingerprint: &Fingerprint, id: &UploadId) -> Result<()> {
        let inserted = self.fingerprints.insert(fingerprint.as_str(), id.as_str());
        inserted.map(drop).map_err(internal)
    }

    /// Releases the fingerprint if this upload holds it.
    pub(super) fn release(&mut self, fingerprint: &Fingerprint, id: &UploadId) -> Result<()> {
        let holds = self
            .fingerprints
            .get(fingerprint.as_str())
            .map_err(internal)?
            .is_some_and(|holder| holder.value() == id.as_str());
        if holds {
            self.fingerprints
                .remove(fingerprint.as_str())
                .map_err(internal)?;
        }
        Ok(())
    }

    /// Adds a new record with its parts and claims.
    pub(super) fn insert(&mut self, upload: Upload) -> Result<()> {
        for part in upload.parts.iter() {
            self.parts.put(&upload.id, part)?;
        }
        for claim in upload.claims.iter() {
            self.put_claim(&upload.id, &claim)?;
        }
        self.listings.add(&upload)?;
        self.remove_at(removed_at(&upload), upload.id.as_str())?;
        let mut record = Record::created(upload);
        self.schedule(&mut record)?;
        self.listings.mark_live(&record.written)?;
        self.store(&record)
    }

    pub(super) fn store(&mut self, record: &Record) -> Result<()> {
        let json = to_json(record)?;
        let inserted = self
            .records
            .insert(record.written.id.as_str(), json.as_str());
        inserted.map(drop).map_err(internal)
    }

    /// Adds claims to those of a record, which may begin a new cut. See
    /// [`PartStore::claim`](upload_gateway_core::state::PartStore::claim).
    pub(super) fn record_claims(
        &mut self,
        record: &mut Record,
        claims: impl Iterator<Item = Claim>,
    ) -> Result<()> {
        let id = record.written.id.clone();
        let is_cut_by_client = record.written.is_cut_by_client;
        let claims: Vec<Claim> = claims.collect();
        let known = claims
            .iter()
            .filter_map(|claim| self.claim(&id, claim.number).transpose())
            .collect::<Result<Claims>>()?;
        if is_cut_by_client && known.show_another_cut(record.cut, &claims) {
            record.cut = record.cut.saturating_add(1);
        }
        for claim in claims {
            if claim.signed_for.is_some() && record.unproven == Some(claim.number) {
                record.unproven = None;
            }
            let claim = Claim {
                signed_for: claim.signed_for.map(|_| record.cut),
                ..claim
            };
            let known = self.claim(&id, claim.number)?;
            if known.is_none_or(|known| claim.replaces(&known, is_cut_by_client)) {
                self.put_claim(&id, &claim)?;
            }
        }
        Ok(())
    }

    fn claim(&self, id: &UploadId, number: u32) -> Result<Option<Claim>> {
        let slot = self.claims.get((id.as_str(), number)).map_err(internal)?;
        slot.map_or(Ok(None), |slot| {
            slot::read_claim(number, slot.value()).map_err(unreadable)
        })
    }

    fn put_claim(&mut self, id: &UploadId, claim: &Claim) -> Result<()> {
        let (key, slot) = ((id.as_str(), claim.number), slot::write_claim(claim));
        let inserted = self.claims.insert(key, &slot);
        inserted.map(drop).map_err(internal)
    }

    /// Removes at most `limit` records whose time of removal has passed.
    pub(super) fn remove_expired(&mut self, now: Timestamp, limit: usize) -> Result<()> {
        for _ in 0..limit {
            let Some((due, id)) = self.first_removal()?.filter(|(due, _)| *due <= now.0) else {
                break;
            };
            self.removals.remove((due, id.as_str())).map_err(internal)?;
            let Some(record) = record(&self.records, &id)? else {
                continue;
            };
            let removal = record.removed_at();
            if removal <= now {
                self.remove_due(&record)?;
                self.remove(&record.written)?;
            } else {
                self.remove_at(removal, &id)?;
            }
        }
        Ok(())
    }

    /// Sets when a record is removed. An earlier time that is known stays until then.
    pub(super) fn remove_at(&mut self, at: Timestamp, id: &str) -> Result<()> {
        if at < Timestamp::never() {
            self.removals.insert((at.0, id), ()).map_err(internal)?;
        }
        Ok(())
    }

    /// Adds the next `limit` records to the indexes of listings, which files of earlier releases do not have. Whether there
    /// may be more of them.
    pub(super) fn index_more(&mut self, limit: usize) -> Result<bool> {
        let after = self.facts.get(INDEXED).map_err(internal)?;
        let after = after.map(|after| String::from_utf8_lossy(after.value()).into_owned());
        let after = after.unwrap_or_default();
        let range = (Bound::Excluded(after.as_str()), Bound::Unbounded);
        let records = self.records.range::<&str>(range).map_err(internal)?;
        let read = records.take(limit).map(|entry| {
            let (_, json) = entry.map_err(internal)?;
            from_json::<Record>(json.value())
        });
        let records = read.collect::<Result<Vec<_>>>()?;
        for record in &records {
            if record.written.phase != Phase::Deleting {
                self.listings.entries.set(&record.written)?;
            }
        }
        let last = records.last().filter(|_| records.len() == limit);
        let indexed = last.map_or(LAST_ID, |record| record.written.id.as_str());
        self.facts
            .insert(INDEXED, indexed.as_bytes())
            .map_err(internal)?;
        Ok(last.is_some())
    }

    fn first_removal(&self) -> Result<Option<(u64, String)>> {
        let first = self.removals.first().map_err(internal)?;
        Ok(first.map(|(key, _)| {
            let (due, id) = key.value();
            (due, id.to_owned())
        }))
    }

    fn remove(&mut self, upload: &Upload) -> Result<()> {
        if let Some(fingerprint) = &upload.fingerprint {
            self.release(fingerprint, &upload.id)?;
        }
        self.remove_parts_and_claims(&upload.id)?;
        self.listings.remove(upload)?;
        self.records
            .remove(upload.id.as_str())
            .map(drop)
            .map_err(internal)
    }

    /// Removes the parts and claims of an upload.
    pub(super) fn remove_parts_and_claims(&mut self, id: &UploadId) -> Result<()> {
        self.parts.remove_beyond(id, 0)?;
        self.claims
            .retain_in(all_numbers(id.as_str()), |_, _| false)
            .map_err(internal)
    }

    /// The stored secret; stores `offered` if there is none.
    pub(super) fn secret(&mut self, offered: &Secret) -> Result<Secret> {
        if let Some(kept) = self.facts.get("secret").map_err(internal)? {
            let bytes = kept.value().try_into().map_err(|cause| {
                Error::internal("the stored secret is not 32 bytes long", cause)
            })?;
            return Ok(Secret::new(bytes));
        }
        self.facts
            .insert("secret", offered.expose().as_slice())
            .map_err(internal)?;
        Ok(offered.clone())
    }

    /// See [`NoteStore::replace_note`](upload_gateway_core::state::NoteStore::replace_note).
    pub(super) fn replace_note(
        &mut self,
        note: &str,
        seen: Option<&str>,
        to: &str,
    ) -> Result<bool> {
        let stored = read_note(&self.facts, note)?;
        let is_expected = stored.as_deref() == seen || stored.as_deref() == Some(to);
        if is_expected {
            self.facts.insert(note, to.as_bytes()).map_err(internal)?;
        }
        Ok(is_expected)
    }

    /// Writes the time of this check.
    pub(super) fn probe(&mut self, now: Timestamp) -> Result<()> {
        let now = now.0.to_be_bytes();
        self.facts
            .insert("checked_at", now.as_slice())
            .map(drop)
            .map_err(internal)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Opens the tables, which [`Tables::open`] created when the file was opened.
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self> {
        Ok(Self {
            records: transaction.open_table(RECORDS).map_err(internal)?,
            parts: PartTables {
                slots: transaction.open_table(PARTS).map_err(internal)?,
                receipts: transaction.open_table(RECEIPTS).map_err(internal)?,
                digests: transaction.open_table(DIGESTS).map_err(internal)?,
            },
            claims: transaction.open_table(CLAIMS).map_err(internal)?,
            listings: ListingsRead::open(transaction)?,
            fingerprints: transaction.open_table(FINGERPRINTS).map_err(internal)?,
            facts: transaction.open_table(FACTS).map_err(internal)?,
        })
    }

    pub(super) fn note(&self, note: &str) -> Result<Option<String>> {
        read_note(&self.facts, note)
    }

    pub(super) fn upload(&self, id: &UploadId) -> Result<Option<Upload>> {
        let record = record(&self.records, id.as_str())?;
        record
            .map(|record| whole(record, &self.parts, &self.claims))
            .transpose()
    }

    /// See [`RecordStore::summary`](upload_gateway_core::state::RecordStore::summary).
    pub(super) fn summary(&self, id: &UploadId) -> Result<Option<Upload>> {
        let record = record(&self.records, id.as_str())?;
        record
            .map(|record| summary(record, &self.parts, []))
            .transpose()
    }

    /// See [`PartStore::committed_parts`](upload_gateway_core::state::PartStore::committed_parts).
    pub(super) fn committed_parts(
        &self,
        id: &UploadId,
        after: u32,
        limit: u32,
    ) -> Result<Option<Vec<Part>>> {
        let record = record(&self.records, id.as_str())?;
        record
            .map(|record| self.parts.committed(&record, after, limit))
            .transpose()
    }

    pub(super) fn page(&self, query: &ListQuery) -> Result<ListPage> {
        let mut entries = self.listings.entries(query)?;
        let has_more = entries.len() > query.limit;
        entries.truncate(query.limit);
        let mut page = ListPage::default();
        for entry in &entries {
            if let Some(record) = record(&self.records, entry.id.as_str())? {
                page.uploads.push(summary(record, &self.parts, [])?);
            }
        }
        page.next = entries.pop().filter(|_| has_more);
        Ok(page)
    }

    /// See [`ListingStore::summaries`](upload_gateway_core::state::ListingStore::summaries).
    pub(super) fn summaries(&self, ids: &[UploadId]) -> Result<Vec<Upload>> {
        let read = |id| self.summary(id).transpose();
        ids.iter().filter_map(read).collect()
    }

    /// The live upload with this fingerprint.
    pub(super) fn holder(&self, fingerprint: &Fingerprint) -> Result<Option<Upload>> {
        let holder = self
            .fingerprints
            .get(fingerprint.as_str())
            .map_err(internal)?;
        let Some(holder) = holder else {
            return Ok(None);
        };
        let known = self.upload(&holder.value().parse().map_err(|cause| {
            Error::internal("the state file holds an invalid upload id", cause)
        })?)?;
        Ok(known.filter(Upload::is_indexed))
    }

    /// How many uploads are live.
    pub(super) fn count_live(&self) -> Result<u64> {
        self.listings.count_live()
    }

    /// How many uploads a listing has.
    pub(super) fn count(&self, listing: &Listing) -> Result<u64> {
        self.listings.entries.count_all(listing)
    }
}

fn read_note(
    facts: &impl ReadableTable<&'static str, &'static [u8]>,
    note: &str,
) -> Result<Option<String>> {
    let stored = facts.get(note).map_err(internal)?;
    let text = stored.map(|stored| String::from_utf8(stored.value().to_vec()));
    text.transpose()
        .map_err(|cause| Error::internal("read a note", cause))
}

fn record(
    records: &impl ReadableTable<&'static str, &'static str>,
    id: &str,
) -> Result<Option<Record>> {
    let json = records.get(id).map_err(internal)?;
    json.map(|json| from_json(json.value())).transpose()
}

fn whole(
    record: Record,
    parts: &PartTables<
        impl ReadableTable<NumberKey<'static>, &'static PartSlot>,
        impl ReadableTable<NumberKey<'static>, &'static str>,
    >,
    claims: &impl ReadableTable<NumberKey<'static>, &'static ClaimSlot>,
) -> Result<Upload> {
    let id = record.written.id.as_str();
    let parts = parts.all(&record)?;
    let claims = claims
        .range(all_numbers(id))
        .map_err(internal)?
        .filter_map(|entry| {
            let read = entry.map_err(internal).and_then(|(key, slot)| {
                slot::read_claim(key.value().1, slot.value()).map_err(unreadable)
            });
            read.transpose()
        })
        .collect::<Result<Claims>>()?;
    Ok(record.with(parts, claims))
}

fn summary(
    record: Record,
    parts: &PartTables<
        impl ReadableTable<NumberKey<'static>, &'static PartSlot>,
        impl ReadableTable<NumberKey<'static>, &'static str>,
    >,
    numbers: impl IntoIterator<Item = u32>,
) -> Result<Upload> {
    let mut known: Vec<Part> = Vec::new();
    for number in numbers.into_iter().chain([record.committed]) {
        known.extend(parts.part(&record, number)?);
    }
    let parts = Parts::summary(record.committed, known);
    Ok(record.with(parts, Claims::default()))
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|cause| Error::internal("write a record as JSON", cause))
}

fn from_json<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|cause| Error::internal("the state file holds an unreadable record", cause))
}
