//! The tables of listings, and of live uploads, to count them.

use std::ops::Bound;

use ::redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};
use upload_gateway_core::{
    error::{Error, Result},
    state::{Cursor, ListQuery, Listing},
    upload::{Owner, Timestamp, Upload, UploadId},
};

use super::{
    entries::{Entries, EntriesRead},
    failure::internal,
};

/// Sorts after every upload id.
const LAST_ID: &str = "~";

/// The uploads by tenant, subject, creation (see [`age`]) and id: the order of an owner's listing.
const OWNERS: TableDefinition<'_, OwnerKey<'static>, ()> = TableDefinition::new("listing");
/// The uploads by tenant, creation and id: the order of a tenant's listing. Those without a tenant are not in it.
const TENANTS: TableDefinition<'_, TenantKey<'static>, ()> = TableDefinition::new("tenant_listing");
/// The uploads that are OPEN or COMMITTING, by id, to count them.
const LIVE: TableDefinition<'_, &str, ()> = TableDefinition::new("live");
/// How many of them an owner has, by tenant and subject. Those without a tenant are not counted.
const LIVE_OF: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("live_of");

type OwnerKey<'a> = (&'a str, &'a str, u64, &'a str);
type TenantKey<'a> = (&'a str, u64, &'a str);

/// The tables in one write transaction.
pub(super) struct Listings<'a> {
    pub(super) entries: Entries<'a>,
    owners: Table<'a, OwnerKey<'static>, ()>,
    tenants: Table<'a, TenantKey<'static>, ()>,
    live: Table<'a, &'static str, ()>,
    live_of: Table<'a, (&'static str, &'static str), u64>,
}

/// The tables for reading, as of one moment.
pub(super) struct ListingsRead {
    pub(super) entries: EntriesRead,
    owners: ReadOnlyTable<OwnerKey<'static>, ()>,
    tenants: ReadOnlyTable<TenantKey<'static>, ()>,
    live: ReadOnlyTable<&'static str, ()>,
}

// === impl Listings ===

impl<'a> Listings<'a> {
    /// Opens the tables, and creates those that do not exist yet.
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self> {
        Ok(Self {
            entries: Entries::open(transaction)?,
            owners: transaction.open_table(OWNERS).map_err(internal)?,
            tenants: transaction.open_table(TENANTS).map_err(internal)?,
            live: transaction.open_table(LIVE).map_err(internal)?,
            live_of: transaction.open_table(LIVE_OF).map_err(internal)?,
        })
    }

    /// Adds the upload to the listings of its owner and their indexes.
    pub(super) fn add(&mut self, upload: &Upload) -> Result<()> {
        self.owners
            .insert(owner_key(upload), ())
            .map_err(internal)?;
        if !upload.owner.tenant.is_empty() {
            self.tenants
                .insert(tenant_key(upload), ())
                .map_err(internal)?;
        }
        self.entries.set(upload)
    }

    /// Removes the upload from the listings of its owner and their indexes, and from the live ones.
    pub(super) fn remove(&mut self, upload: &Upload) -> Result<()> {
        self.owners.remove(owner_key(upload)).map_err(internal)?;
        self.tenants.remove(tenant_key(upload)).map_err(internal)?;
        self.entries.remove(upload)?;
        self.set_live(upload, false)
    }

    /// Adds the upload to the live ones, or removes it if it has ended.
    pub(super) fn mark_live(&mut self, upload: &Upload) -> Result<()> {
        self.set_live(upload, upload.is_live())
    }

    /// How many live uploads the owner has, if it has a tenant.
    pub(super) fn live_of(&self, owner: &Owner) -> Result<u64> {
        let count = self.live_of.get(owner_text(owner)).map_err(internal)?;
        Ok(count.map_or(0, |count| count.value()))
    }

    fn set_live(&mut self, upload: &Upload, is_live: bool) -> Result<()> {
        let (id, owner) = (upload.id.as_str(), &upload.owner);
        let was_live = match is_live {
            true => self.live.insert(id, ()),
            false => self.live.remove(id),
        };
        let was_live = was_live.map_err(internal)?.is_some();
        if was_live == is_live || owner.tenant.is_empty() {
            return Ok(());
        }
        let count = match is_live {
            true => self.live_of(owner)?.saturating_add(1),
            false => self.live_of(owner)?.saturating_sub(1),
        };
        let key = owner_text(owner);
        match count {
            0 => self.live_of.remove(key).map(drop),
            _ => self.live_of.insert(key, count).map(drop),
        }
        .map_err(internal)
    }
}

// === impl ListingsRead ===

impl ListingsRead {
    /// Opens the tables, which [`Listings::open`] has created.
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self> {
        Ok(Self {
            entries: EntriesRead::open(transaction)?,
            owners: transaction.open_table(OWNERS).map_err(internal)?,
            tenants: transaction.open_table(TENANTS).map_err(internal)?,
            live: transaction.open_table(LIVE).map_err(internal)?,
        })
    }

    /// The entries that the query selects, and one more if there is one.
    pub(super) fn entries(&self, query: &ListQuery) -> Result<Vec<Cursor>> {
        let after = query.after.as_ref();
        let after = after.map(|after| (age(after.created_at), after.id.as_str()));
        let (skip, limit) = (query.skip, query.limit + 1);
        match &query.listing {
            Listing::Owner(owner) => {
                let (tenant, subject) = owner_text(owner);
                let key = |(age, id)| (tenant, subject, age, id);
                let range = (
                    after.map_or(Bound::Included(key((0, ""))), |at| Bound::Excluded(key(at))),
                    Bound::Included(key((u64::MAX, LAST_ID))),
                );
                let entries = self.owners.range::<OwnerKey<'_>>(range).map_err(internal)?;
                let entries = entries.skip(skip).take(limit);
                entries
                    .map(|entry| {
                        let (entry, _) = entry.map_err(internal)?;
                        let (_, _, age, id) = entry.value();
                        cursor(age, id)
                    })
                    .collect()
            }
            Listing::Tenant(tenant) => {
                let key = |(age, id)| (tenant.as_str(), age, id);
                let range = (
                    after.map_or(Bound::Included(key((0, ""))), |at| Bound::Excluded(key(at))),
                    Bound::Included(key((u64::MAX, LAST_ID))),
                );
                let entries = self
                    .tenants
                    .range::<TenantKey<'_>>(range)
                    .map_err(internal)?;
                let entries = entries.skip(skip).take(limit);
                entries
                    .map(|entry| {
                        let (entry, _) = entry.map_err(internal)?;
                        let (_, age, id) = entry.value();
                        cursor(age, id)
                    })
                    .collect()
            }
        }
    }

    /// How many uploads are live.
    pub(super) fn count_live(&self) -> Result<u64> {
        self.live.len().map_err(internal)
    }
}

fn cursor(age: u64, id: &str) -> Result<Cursor> {
    let id: UploadId = id
        .parse()
        .map_err(|cause| Error::internal("the state file holds an invalid upload id", cause))?;
    Ok(Cursor {
        created_at: Timestamp(u64::MAX - age),
        id,
        name: None,
    })
}

fn owner_text(owner: &Owner) -> (&str, &str) {
    (&owner.tenant, &owner.subject)
}

fn owner_key(upload: &Upload) -> OwnerKey<'_> {
    let (tenant, subject) = owner_text(&upload.owner);
    (tenant, subject, age(upload.created_at), upload.id.as_str())
}

fn tenant_key(upload: &Upload) -> TenantKey<'_> {
    let tenant = &upload.owner.tenant;
    (tenant, age(upload.created_at), upload.id.as_str())
}

/// A number that is larger for older uploads, so that the newest comes first.
fn age(created_at: Timestamp) -> u64 {
    u64::MAX - created_at.0
}
