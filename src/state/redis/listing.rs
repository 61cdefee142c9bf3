//! The listing of an owner's uploads: a sorted set with equal scores. Redis orders its members by their bytes, which gives
//! the order of the listing.
//!
//! It is written after the record, so it can be out of date. Reading the listing also reads each record, and removes
//! members without one; so does the sweeper (`due.rs`). Opening or updating an upload adds its member again.

use futures::{StreamExt, TryStreamExt, stream};
use upload_gateway_core::{
    error::Result,
    state::{Cursor, ListPage, ListQuery},
    upload::{Owner, Timestamp, Upload, UploadId},
};

use super::{
    Redis,
    record::{self, Summary, removal_time},
    scripts::SCRIPTS,
};

/// How many members of a listing one call reads at most.
const LIST_SCAN: usize = 1_000;

/// How long changes of a record are published after it was read for a watcher: longer than the time to the next read.
const WATCHED_SECONDS: u32 = 15;

/// How many records a listing reads concurrently.
const LIST_CONCURRENCY: usize = 16;

impl Redis {
    fn listing_key(&self, owner: &Owner) -> String {
        self.owner_key(&record::owner_text(owner))
    }

    /// The listing of the owner with this text.
    pub(super) fn owner_key(&self, owner: &str) -> String {
        self.key(&format!("owner:{owner}"))
    }

    /// See [`ListingStore::list`](upload_gateway_core::state::ListingStore::list).
    pub(super) async fn page(&self, query: &ListQuery) -> Result<ListPage> {
        let listing = self.listing_key(&query.owner);
        let mut after = query.after.as_ref().map_or_else(
            || "-".to_owned(),
            |cursor| format!("({}", listing_member(cursor.created_at, &cursor.id)),
        );
        let mut page = ListPage::default();
        let mut scanned = 0;
        while scanned < LIST_SCAN {
            let remaining = query.limit.max(1) - page.uploads.len();
            let size = if query.phase.is_some() {
                remaining.max(100)
            } else {
                remaining
            }
            .min(LIST_SCAN - scanned);
            let batch = self.batch(&listing, &after, size).await?;
            scanned += size;
            let is_last_batch = batch.len() < size;
            let last = batch.len().saturating_sub(1);
            for (index, (member, upload)) in batch.into_iter().enumerate() {
                after = format!("({member}");
                let shown = upload.filter(|upload| {
                    upload.owner == query.owner
                        && query.phase.is_none_or(|phase| phase == upload.phase)
                });
                page.uploads.extend(shown);
                if page.uploads.len() == query.limit.max(1) {
                    if !(is_last_batch && index == last) {
                        page.next = listing_cursor(&member);
                    }
                    return Ok(page);
                }
            }
            if is_last_batch {
                return Ok(page);
            }
        }
        page.next = listing_cursor(after.trim_start_matches('('));
        Ok(page)
    }

    /// See [`ListingStore::count`](upload_gateway_core::state::ListingStore::count).
    pub(super) async fn count_listed(&self, owner: &Owner) -> Result<u64> {
        let count = redis::cmd("ZCARD").arg(self.listing_key(owner)).to_owned();
        self.link.command(&count).await
    }

    /// Adds the upload to its owner's listing, and sets when the sweeper looks at it next.
    pub(super) async fn index(&self, upload: &Upload) -> Result<()> {
        let mut invocation = SCRIPTS.index.key(self.listing_key(&upload.owner));
        let member = listing_member(upload.created_at, &upload.id);
        invocation
            .arg(member)
            .arg(0)
            .arg(removal_time(upload.expires_at));
        let listed = self.link.script::<()>(&invocation);
        tokio::try_join!(listed, self.schedule(upload)).map(drop)
    }

    /// One batch of a listing after `after`, each member with its record if it exists.
    async fn batch(
        &self,
        listing: &str,
        after: &str,
        size: usize,
    ) -> Result<Vec<(String, Option<Upload>)>> {
        let members: Vec<String> = self
            .link
            .command(
                redis::cmd("ZRANGE")
                    .arg(listing)
                    .arg(after)
                    .arg("+")
                    .arg("BYLEX")
                    .arg(("LIMIT", 0, size)),
            )
            .await?;
        let summaries = members.into_iter().map(|member| async move {
            let id = member.split_once(':').and_then(|(_, id)| id.parse().ok());
            let upload = match id {
                Some(id) => self.read_summary(&id).await?,
                None => None,
            };
            if upload.is_none() {
                self.link
                    .command::<()>(redis::cmd("ZREM").arg(listing).arg(&member))
                    .await?;
            }
            Ok((member, upload))
        });
        stream::iter(summaries)
            .buffered(LIST_CONCURRENCY)
            .try_collect()
            .await
    }

    /// See [`RecordStore::summary`](upload_gateway_core::state::RecordStore::summary).
    pub(super) async fn read_summary(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.summary_watched_for(id, 0).await
    }

    /// See [`RecordStore::observe`](upload_gateway_core::state::RecordStore::observe).
    pub(super) async fn read_observed(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.summary_watched_for(id, WATCHED_SECONDS).await
    }

    async fn summary_watched_for(&self, id: &UploadId, seconds: u32) -> Result<Option<Upload>> {
        let key = self.record_key(id);
        let mut invocation = self.keyed(&SCRIPTS.summary, id);
        invocation.arg(seconds);
        let summary: Summary = self.link.script(&invocation).await?;
        record::read_summary(&key, &summary, [])
    }
}

/// A member of a listing. In byte order the newest upload comes first, then the lowest id.
fn listing_member(created_at: Timestamp, id: &UploadId) -> String {
    format!("{}:{id}", record::age(created_at))
}

fn listing_cursor(member: &str) -> Option<Cursor> {
    let (inverted, id) = member.split_once(':')?;
    Some(Cursor {
        created_at: Timestamp(u64::MAX - u64::from_str_radix(inverted, 16).ok()?),
        id: id.parse().ok()?,
    })
}
