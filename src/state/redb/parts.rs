//! The tables of parts: their slots, the receipts that a slot has no room for, and the digest states.

use std::ops::RangeInclusive;

use ::redb::{ReadOnlyTable, ReadableTable, Table};
use upload_gateway_core::{
    error::{Error, Result},
    upload::{DigestState, Part, Parts, UploadId},
};

use super::{failure::internal, record::Record};
use crate::state::slot::{self, PartSlot};

/// The key of a part or claim: upload id and number.
pub(super) type NumberKey<'a> = (&'a str, u32);

/// A table of slots, in a write transaction.
pub(super) type Slots<'a> = Table<'a, NumberKey<'static>, &'static PartSlot>;

/// A table of texts, in a write transaction.
pub(super) type Texts<'a> = Table<'a, NumberKey<'static>, &'static str>;

/// A table of slots, in a read transaction.
pub(super) type SlotsRead = ReadOnlyTable<NumberKey<'static>, &'static PartSlot>;

/// A table of texts, in a read transaction.
pub(super) type TextsRead = ReadOnlyTable<NumberKey<'static>, &'static str>;

/// The tables in one transaction.
pub(super) struct PartTables<S, T> {
    pub(super) slots: S,
    pub(super) receipts: T,
    pub(super) digests: T,
}

// === impl PartTables ===

impl<S, T> PartTables<S, T>
where
    S: ReadableTable<NumberKey<'static>, &'static PartSlot>,
    T: ReadableTable<NumberKey<'static>, &'static str>,
{
    /// All parts of a record.
    pub(super) fn all(&self, record: &Record) -> Result<Parts> {
        let id = record.written.id.as_str();
        let slots = self.slots.range(all_numbers(id)).map_err(internal)?;
        let mut parts = Vec::new();
        for entry in slots {
            let (key, slot) = entry.map_err(internal)?;
            parts.extend(self.read(record, key.value().1, slot.value())?);
        }
        Ok(parts.into_iter().collect())
    }

    /// Up to `limit` committed parts of a record, starting after number `after`.
    pub(super) fn committed(&self, record: &Record, after: u32, limit: u32) -> Result<Vec<Part>> {
        let last = record.committed.min(after.saturating_add(limit));
        let numbers = after.saturating_add(1)..=last;
        let parts = numbers.map(|number| self.part(record, number));
        Ok(parts
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// One part of a record.
    pub(super) fn part(&self, record: &Record, number: u32) -> Result<Option<Part>> {
        match self.slot(record.written.id.as_str(), number)? {
            Some(slot) => self.read(record, number, &slot),
            None => Ok(None),
        }
    }

    /// The slot of a part, if there is a part.
    pub(super) fn slot(&self, id: &str, number: u32) -> Result<Option<PartSlot>> {
        let slot = self.slots.get((id, number)).map_err(internal)?;
        Ok(slot.map(|slot| *slot.value()))
    }

    fn read(&self, record: &Record, number: u32, slot: &PartSlot) -> Result<Option<Part>> {
        let key = (record.written.id.as_str(), number);
        let receipt = match slot::has_long_receipt(slot) {
            true => text(&self.receipts, key)?,
            false => None,
        };
        let digest = text(&self.digests, key)?.map(DigestState::try_from);
        let digest = digest.transpose().map_err(unreadable)?;
        slot::read_part(&record.written.plan, number, slot, || receipt, digest).map_err(unreadable)
    }
}

impl PartTables<Slots<'_>, Texts<'_>> {
    /// Adds a part; replaces a part of the same number. Returns whether it replaced another part.
    pub(super) fn put(&mut self, id: &UploadId, part: &Part) -> Result<bool> {
        let key = (id.as_str(), part.number);
        let (slot, receipt) = slot::write_part(part)?;
        let known = self.slots.insert(key, &slot).map_err(internal)?;
        let is_other = known.is_some_and(|known| *known.value() != slot);
        set(&mut self.receipts, key, receipt)?;
        let digest = part.digest.clone().map(String::from);
        set(&mut self.digests, key, digest.as_deref())?;
        Ok(is_other)
    }

    /// How many parts the contiguous prefix has, if it had `committed` parts before.
    pub(super) fn contiguous_from(&self, id: &UploadId, mut committed: u32) -> Result<u32> {
        while self.slot(id.as_str(), committed + 1)?.is_some() {
            committed += 1;
        }
        Ok(committed)
    }

    /// Drops the digest states that no resume can need; see [`Parts::insert`].
    pub(super) fn drop_digests(&mut self, id: &UploadId, committed: u32) -> Result<()> {
        let id = id.as_str();
        let mut dropped = Vec::new();
        for entry in self
            .digests
            .range((id, 0)..(id, committed))
            .map_err(internal)?
        {
            let number = entry.map_err(internal)?.0.value().1;
            let has_checksum = |number| {
                let slot = self.slot(id, number)?;
                Ok::<_, Error>(slot.is_some_and(|slot| slot::checksum(&slot).is_some()))
            };
            if has_checksum(number)? && has_checksum(number + 1)? {
                dropped.push(number);
            }
        }
        for number in dropped {
            set(&mut self.digests, (id, number), None)?;
        }
        Ok(())
    }

    /// Removes the parts after number `committed`.
    pub(super) fn remove_beyond(&mut self, id: &UploadId, committed: u32) -> Result<()> {
        let beyond = (id.as_str(), committed + 1)..=(id.as_str(), u32::MAX);
        self.slots
            .retain_in(beyond.clone(), |_, _| false)
            .map_err(internal)?;
        for table in [&mut self.receipts, &mut self.digests] {
            table
                .retain_in(beyond.clone(), |_, _| false)
                .map_err(internal)?;
        }
        Ok(())
    }
}

/// The keys of all parts or claims of an upload.
pub(super) fn all_numbers(id: &str) -> RangeInclusive<NumberKey<'_>> {
    (id, 0)..=(id, u32::MAX)
}

fn text(
    table: &impl ReadableTable<NumberKey<'static>, &'static str>,
    key: NumberKey<'_>,
) -> Result<Option<String>> {
    let text = table.get(key).map_err(internal)?;
    Ok(text.map(|text| text.value().to_owned()))
}

fn set(table: &mut Texts<'_>, key: NumberKey<'_>, value: Option<&str>) -> Result<()> {
    match value {
        Some(value) => table.insert(key, value).map(drop),
        None => table.remove(key).map(drop),
    }
    .map_err(internal)
}

pub(super) fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("the state file holds an unreadable part or claim", cause)
}
