//! The listing of an owner's uploads: a sorted set with equal scores. Redis orders its members by their bytes, which gives
//! the order of the listing.
//!
//! It is written after the record, so it can be out of date. Reading the listing also reads each record, and removes
//! members without one; so does the sweeper (`due.rs`). Opening or updating an upload adds its member again.

use redis::ScriptInvocation;
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

/// How long changes of a record are published after it was read for a watcher: longer than the time to the next read.
const WATCHED_SECONDS: u32 = 15;

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
        let after = query.after.as_ref().map_or_else(
            || "-".to_owned(),
            |cursor| format!("({}", listing_member(cursor.created_at, &cursor.id)),
        );
        // One more member shows whether there is a next page.
        let range = redis::cmd("ZRANGE")
            .arg((&listing, after, "+", "BYLEX"))
            .arg(("LIMIT", query.skip, query.limit + 1))
            .to_owned();
        let mut members: Vec<String> = self.link.command(&range).await?;
        let has_more = members.len() > query.limit;
        members.truncate(query.limit);
        let cursors: Vec<_> = members
            .iter()
            .map(|member| listing_cursor(member))
            .collect();
        let ids: Vec<&UploadId> = cursors.iter().flatten().map(|cursor| &cursor.id).collect();
        let mut summaries = self.summaries(&ids).await?.into_iter();
        let mut page = ListPage::default();
        let mut vanished = Vec::new();
        for (member, cursor) in members.into_iter().zip(&cursors) {
            match cursor.as_ref().and_then(|_| summaries.next().flatten()) {
                Some(upload) if upload.owner == query.owner => page.uploads.push(upload),
                Some(_) => {}
                None => vanished.push(member),
            }
        }
        if !vanished.is_empty() {
            let forget = redis::cmd("ZREM").arg(&listing).arg(vanished).to_owned();
            self.link.command::<()>(&forget).await?;
        }
        page.next = cursors.into_iter().flatten().last().filter(|_| has_more);
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

    /// The summaries of records, in one round trip. `None` for a record that does not exist.
    async fn summaries(&self, ids: &[&UploadId]) -> Result<Vec<Option<Upload>>> {
        let invocations: Vec<_> = ids.iter().map(|id| self.summary_of(id, 0)).collect();
        // Together they are large, so they delay no other call.
        let summaries: Vec<Summary> = self.pages.link.scripts(&invocations).await?;
        let read = |(id, summary): (&&UploadId, Summary)| {
            record::read_summary(&self.record_key(id), &summary, [])
        };
        ids.iter().zip(summaries).map(read).collect()
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
        let summary: Summary = self.link.script(&self.summary_of(id, seconds)).await?;
        record::read_summary(&self.record_key(id), &summary, [])
    }

    fn summary_of(&self, id: &UploadId, watched_for: u32) -> ScriptInvocation<'_> {
        let mut invocation = self.keyed(&SCRIPTS.summary, id);
        invocation.arg(watched_for);
        invocation
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
