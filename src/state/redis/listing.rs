//! The listings of owners and tenants: sorted sets with equal scores. Redis orders the members by their bytes, which gives the
//! order of a listing. And the live uploads of each owner, to count them.
//!
//! They are written beside the record, in other slots, so they can be out of date. Reading a listing also reads each record, and
//! removes members without one; so does the sweeper (`due.rs`). Opening or updating an upload adds its members again.

use futures::future::try_join_all;
use redis::ScriptInvocation;
use tokio::task::yield_now;
use upload_gateway_core::{
    error::Result,
    state::{Cursor, ListPage, ListQuery, Listing, listings},
    upload::{Owner, Phase, Timestamp, Upload, UploadId},
};

use super::{
    Redis,
    record::{self, Summary, removal_time},
    scripts::SCRIPTS,
};

/// How long changes of a record are published after it was read for a watcher: longer than the time to the next read.
const WATCHED_SECONDS: u32 = 15;

/// How many summaries are parsed before other calls have a turn: about a millisecond.
const READ_AT_ONCE: usize = 64;

impl Redis {
    fn listing_key(&self, listing: &Listing) -> String {
        match listing {
            Listing::Owner(owner) => self.key(&format!("owner:{}", record::owner_text(owner))),
            Listing::Tenant(tenant) => self.key(&format!("tenant:{tenant}")),
        }
    }

    fn live_key(&self, owner: &Owner) -> String {
        self.key(&format!("live:{}", record::owner_text(owner)))
    }

    /// See [`ListingStore::list`](upload_gateway_core::state::ListingStore::list).
    pub(super) async fn page(&self, query: &ListQuery) -> Result<ListPage> {
        let listing = self.listing_key(&query.listing);
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
        let mut summaries = self.read_summaries(&ids).await?.into_iter();
        let mut page = ListPage::default();
        let mut vanished = Vec::new();
        for (member, cursor) in members.into_iter().zip(&cursors) {
            match cursor.as_ref().and_then(|_| summaries.next().flatten()) {
                Some(upload) if query.listing.has(&upload.owner) => page.uploads.push(upload),
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
    pub(super) async fn count_listed(&self, listing: &Listing) -> Result<u64> {
        let count = redis::cmd("ZCARD")
            .arg(self.listing_key(listing))
            .to_owned();
        self.link.command(&count).await
    }

    /// Adds the upload to its listings and their indexes, or removes it if its file is deleted; counts it among the live ones
    /// of its owner if it is live; and sets when the sweeper looks at it next.
    pub(super) async fn index(&self, upload: &Upload) -> Result<()> {
        tokio::try_join!(self.index_uncounted(upload), self.mark_live(upload)).map(drop)
    }

    /// As [`Redis::index`], without counting it among the live ones.
    pub(super) async fn index_uncounted(&self, upload: &Upload) -> Result<()> {
        tokio::try_join!(
            self.schedule(upload),
            self.list_or_remove(upload),
            self.set_entries(upload)
        )
        .map(drop)
    }

    async fn list_or_remove(&self, upload: &Upload) -> Result<()> {
        if upload.phase == Phase::Deleting {
            let member = listing_member(upload.created_at, &upload.id);
            return self.remove_listed(&upload.owner, &member).await;
        }
        let add = |listing| self.add_to(listing, upload);
        try_join_all(listings(&upload.owner).map(add))
            .await
            .map(drop)
    }

    async fn add_to(&self, listing: Listing, upload: &Upload) -> Result<()> {
        let mut invocation = SCRIPTS.index.key(self.listing_key(&listing));
        let member = listing_member(upload.created_at, &upload.id);
        invocation.arg(member).arg(0).arg(removal_time(upload));
        self.link.script(&invocation).await
    }

    /// Removes the upload from the listings of its owner, and what the sweeper knows of it.
    pub(super) async fn unindex(&self, upload: &Upload) -> Result<()> {
        tokio::try_join!(self.unlist(upload), self.unschedule(upload)).map(drop)
    }

    /// Removes the upload from the listings of its owner. The sweeper still looks at it.
    pub(super) async fn unlist(&self, upload: &Upload) -> Result<()> {
        let member = listing_member(upload.created_at, &upload.id);
        tokio::try_join!(
            self.remove_listed(&upload.owner, &member),
            self.remove_entries(upload),
            self.end_reservation(upload)
        )
        .map(drop)
    }

    /// Removes a member from the listings of an owner.
    pub(super) async fn remove_listed(&self, owner: &Owner, member: &str) -> Result<()> {
        let remove = |listing| {
            let command = redis::cmd("ZREM")
                .arg(self.listing_key(&listing))
                .arg(member)
                .to_owned();
            async move { self.link.command::<()>(&command).await }
        };
        try_join_all(listings(owner).map(remove)).await.map(drop)
    }

    /// Adds the upload to the live ones of its owner, or removes it if it has ended.
    pub(super) async fn mark_live(&self, upload: &Upload) -> Result<()> {
        match upload.is_live() {
            true => self.reserve(upload, u64::MAX).await.map(drop),
            false => self.end_reservation(upload).await,
        }
    }

    /// Adds the upload to the live ones of its owner, unless there are `max` others. Whether it was added.
    pub(super) async fn reserve(&self, upload: &Upload, max: u64) -> Result<bool> {
        // A record that was rebuilt is over from the beginning.
        if upload.owner.tenant.is_empty() || !upload.is_live() {
            return Ok(true);
        }
        let mut invocation = SCRIPTS.reserve.key(self.live_key(&upload.owner));
        let max = (max < u64::MAX).then(|| max.to_string());
        invocation
            .arg(upload.id.as_str())
            .arg(upload.ends_at.0)
            .arg(max.unwrap_or_default())
            .arg(upload.updated_at.0);
        self.link.script(&invocation).await
    }

    /// Removes the upload from the live ones of its owner.
    pub(super) async fn end_reservation(&self, upload: &Upload) -> Result<()> {
        self.remove_live(&upload.owner, &upload.id).await
    }

    /// Removes an upload from the live ones of an owner.
    pub(super) async fn remove_live(&self, owner: &Owner, id: &UploadId) -> Result<()> {
        if owner.tenant.is_empty() {
            return Ok(());
        }
        let remove = redis::cmd("ZREM")
            .arg(self.live_key(owner))
            .arg(id.as_str())
            .to_owned();
        self.link.command(&remove).await
    }

    /// The summaries of records, in one round trip. `None` for a record that does not exist.
    pub(super) async fn read_summaries(&self, ids: &[&UploadId]) -> Result<Vec<Option<Upload>>> {
        let invocations: Vec<_> = ids.iter().map(|id| self.summary_of(id, 0)).collect();
        // Together they are large, so they delay no other call.
        let summaries: Vec<Summary> = self.pages.link.scripts(&invocations).await?;
        let mut uploads = Vec::with_capacity(ids.len());
        for (read, (id, summary)) in ids.iter().zip(summaries).enumerate() {
            if read % READ_AT_ONCE == READ_AT_ONCE - 1 {
                // Other calls must not wait for all of them.
                yield_now().await;
            }
            uploads.push(record::read_summary(&self.record_key(id), &summary, [])?);
        }
        Ok(uploads)
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

pub(super) fn listing_cursor(member: &str) -> Option<Cursor> {
    let (inverted, id) = member.split_once(':')?;
    Some(Cursor {
        created_at: Timestamp(u64::MAX - u64::from_str_radix(inverted, 16).ok()?),
        id: id.parse().ok()?,
        name: None,
    })
}
