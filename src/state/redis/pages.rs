//! Reads of whole records, page by page.
//!
//! Most records fit into one page, which one script reads. The further pages of larger records have a connection of
//! their own, so that they delay no other call. A page has a time-out of its own; a whole read may take as long as its
//! pages arrive. Few whole reads run at once.

use std::time::Duration;

use redis::Script;
use tokio::sync::{Semaphore, SemaphorePermit};
use upload_gateway_core::{
    error::{Error, Kind, Reason, Result},
    upload::{Part, Upload, UploadId},
};

use super::{
    Redis,
    connection::Link,
    record::{self, Fields, Receipts, Stored},
    scripts::SCRIPTS,
};
use crate::state::{
    searches::Searches,
    slot::{CLAIM_SLOT, PART_SLOT},
};

/// How many parts, and how many claims, one page has at most: 58 kB of slots, at most 1 MB with the longest receipts.
pub(super) const PAGE: u32 = 1_000;

/// How long one page may take.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many large records are read at once.
const READS_AT_ONCE: usize = 4;

/// How often a record is read again because it changed between two pages.
const ATTEMPTS: usize = 5;

/// What a script returns of a record: see `page` in `prelude.lua`.
pub(super) type Page = (Fields, Vec<u8>, Receipts, Vec<u8>, u32);

/// The connection for large records.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) link: Link,
    turns: Semaphore,
    pub(super) searches: Searches,
}

// === impl Pages ===

impl Pages {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            turns: Semaphore::new(READS_AT_ONCE),
            searches: Searches::default(),
        }
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        let turn = self.turns.acquire().await;
        turn.map_err(|closed| Error::internal("read a large record", closed))
    }
}

// === impl Redis ===

impl Redis {
    /// The record with all its parts and claims.
    pub(super) async fn whole(&self, id: &UploadId) -> Result<Option<Upload>> {
        let first = self.read_page(&self.link, id, 1, PAGE).await?;
        self.whole_from(id, first).await
    }

    /// The record with all its parts and claims, of which `first` is the first page.
    pub(super) async fn whole_from(&self, id: &UploadId, first: Page) -> Result<Option<Upload>> {
        let key = self.record_key(id);
        let (mut stored, mut slots) = into_stored(first);
        if slots <= PAGE {
            return stored.read(&key);
        }
        let _turn = self.pages.turn().await?;
        for _ in 0..ATTEMPTS {
            match self.add_pages(id, &mut stored, slots).await? {
                None => return stored.read(&key),
                Some(changed) => (stored, slots) = changed,
            }
        }
        let message = "the upload changed while its parts were read; retry";
        Err(Error::new(Kind::Unavailable, Reason::WriterActive, message))
    }

    /// See [`PartStore::committed_parts`](upload_gateway_core::state::PartStore::committed_parts).
    pub(super) async fn read_committed(
        &self,
        id: &UploadId,
        after: u32,
        limit: u32,
    ) -> Result<Option<Vec<Part>>> {
        let _turn = self.pages.turn().await?;
        let mut parts = Vec::new();
        while (parts.len() as u64) < u64::from(limit) {
            let first = after.saturating_add(1).saturating_add(count(&parts));
            let wanted = PAGE.min(limit - count(&parts));
            let (fields, slots, receipts, ..) =
                self.read_page(&self.pages.link, id, first, wanted).await?;
            let page =
                record::read_committed(&self.record_key(id), &fields, first, &slots, &receipts)?;
            let Some(page) = page else {
                return Ok(None);
            };
            let is_last = count(&page) < wanted;
            parts.extend(page);
            if is_last {
                break;
            }
        }
        Ok(Some(parts))
    }

    /// Adds the pages after the first one. If another caller has updated the record since `stored` was read, parts of
    /// both states may be mixed: then returns the present first page and number of slots.
    async fn add_pages(
        &self,
        id: &UploadId,
        stored: &mut Stored,
        mut slots: u32,
    ) -> Result<Option<(Stored, u32)>> {
        let link = &self.pages.link;
        let mut next = PAGE + 1;
        while next <= slots {
            let page = self.read_page(link, id, next, PAGE).await?;
            let (_, parts, receipts, claims, now) = page;
            append(&mut stored.parts, next, PART_SLOT, &parts);
            append(&mut stored.claims, next, CLAIM_SLOT, &claims);
            stored.receipts.extend(receipts);
            (slots, next) = (now, next + PAGE);
        }
        let present = into_stored(self.read_page(link, id, 1, PAGE).await?);
        let version = |stored: &Stored| {
            let field = |name: &str| stored.fields.get(name).cloned();
            (field("version"), field("writer"))
        };
        Ok((version(&present.0) != version(stored)).then_some(present))
    }

    async fn read_page(&self, link: &Link, id: &UploadId, first: u32, count: u32) -> Result<Page> {
        let mut invocation = self.keyed(&SCRIPTS.read, id);
        invocation.arg(first).arg(count);
        link.script(&invocation).await
    }

    /// A call of a script with all keys of a record.
    pub(super) fn keyed<'a>(
        &self,
        script: &'a Script,
        id: &UploadId,
    ) -> redis::ScriptInvocation<'a> {
        let mut invocation = script.key(self.record_key(id));
        for name in ["parts", "claims", "receipts"] {
            invocation.key(self.tagged_key(name, id));
        }
        invocation.key(self.fingerprints_key(id));
        invocation
    }
}

fn count(parts: &[Part]) -> u32 {
    u32::try_from(parts.len()).unwrap_or(u32::MAX)
}

/// The first page, and the number of slots of the whole record.
fn into_stored((fields, parts, receipts, claims, slots): Page) -> (Stored, u32) {
    let stored = Stored {
        fields,
        parts,
        receipts,
        claims,
    };
    (stored, slots)
}

/// Appends the slots from number `first`; the numbers before it that are missing have empty slots.
fn append(all: &mut Vec<u8>, first: u32, width: usize, slots: &[u8]) {
    if !slots.is_empty() {
        all.resize((first as usize - 1) * width, 0);
        all.extend_from_slice(slots);
    }
}
