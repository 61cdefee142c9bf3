//! The uploads that are due, and the leases.
//!
//! `due` is a sorted set of uploads by the time at which the sweeper must check them: when they are due, and at last when
//! their record is gone; COMPLETE ones once before, to make their records compact. The scores of ended uploads are higher by [`ENDED`], so that the live ones can be counted with one
//! command. It is a hint, written after the
//! record and in another slot: an entry is checked against its record when it is read. Parts and claims, which postpone
//! the end of an upload, do not change its entry; reading the entry corrects it.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use upload_gateway_core::{
    error::{Error, Result},
    state::{self, Due, DuePage},
    upload::{Owner, Phase, Timestamp, Upload, UploadId},
};

use super::{
    Redis,
    listing::listing_cursor,
    record::{self, age, owner_text, parse_owner, removal_time},
    scripts::SCRIPTS,
};

/// How many records are read concurrently.
pub(super) const CONCURRENCY: usize = 16;

/// What is added to the score of an ended upload: more than any time, half of what a score, which is a double, holds
/// exactly.
const ENDED: u64 = 1 << 52;

/// How long after an upload became COMPLETE its record is made compact. Until then replicas of the release before, which cannot
/// read compact records, have been replaced in an upgrade.
const COMPACT_AFTER: Duration = Duration::from_secs(60 * 60);

/// A member of `due`.
pub(super) struct Entry {
    member: String,
    pub(super) score: u64,
    pub(super) due: Due,
    /// The upload's member of listings.
    listed: String,
    owner: Owner,
}

// === impl Redis ===

impl Redis {
    pub(super) fn due_key(&self) -> String {
        self.key("due")
    }

    /// Sets when the sweeper looks at the upload next.
    pub(super) async fn schedule(&self, upload: &Upload) -> Result<()> {
        let mut invocation = SCRIPTS.index.key(self.due_key());
        let compact_at = upload.updated_at.plus(COMPACT_AFTER);
        let compaction = (upload.phase == Phase::Complete).then(|| ENDED + time(compact_at));
        let looks = next_look(upload).into_iter().chain(compaction);
        invocation
            .arg(due_member(upload))
            .arg(looks.min().unwrap_or(ENDED + time(Timestamp::never())))
            .arg(removal_time(upload));
        self.link.script(&invocation).await
    }

    /// Removes what the sweeper knows of the upload.
    pub(super) async fn unschedule(&self, upload: &Upload) -> Result<()> {
        let remove = redis::cmd("ZREM")
            .arg(self.due_key())
            .arg(due_member(upload))
            .to_owned();
        self.link.command(&remove).await
    }

    /// See [`ScheduleStore::due`](upload_gateway_core::state::ScheduleStore::due).
    pub(super) async fn due_page(
        &self,
        before: Timestamp,
        after: Option<&Due>,
        limit: usize,
    ) -> Result<DuePage> {
        if after.is_none() {
            self.index_more(before).await?;
        }
        let limit = limit.max(1);
        let live = self.due_entries(0, before, after, limit);
        let ended = self.due_entries(ENDED, before, after, limit);
        let (mut entries, ended) = tokio::try_join!(live, ended)?;
        entries.extend(ended);
        entries.sort_by(|one, other| one.due.cmp(&other.due));
        entries.truncate(limit);
        let last = entries.last().filter(|_| entries.len() == limit);
        let next = last.map(|entry| entry.due.clone());
        let checked = entries
            .into_iter()
            .map(|entry| self.check_due(entry, before));
        let uploads = stream::iter(checked)
            .buffered(CONCURRENCY)
            .try_filter_map(|due| async move { Ok(due) })
            .try_collect();
        let uploads = uploads.await?;
        Ok(DuePage { uploads, next })
    }

    /// The first `limit` entries with scores from `offset`, after `after`.
    async fn due_entries(
        &self,
        offset: u64,
        before: Timestamp,
        after: Option<&Due>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let mut invocation = SCRIPTS.due.key(self.due_key());
        invocation
            .arg(offset + after.map_or(0, |due| time(due.at)))
            .arg(after.map_or("", |due| due.id.as_str()))
            .arg(offset + time(before))
            .arg(limit);
        let members: Vec<(String, u64)> = self.link.script(&invocation).await?;
        let entry = |(member, score)| Entry::new(member, score, offset);
        members.into_iter().map(entry).collect()
    }

    /// See [`ListingStore::count_live`](upload_gateway_core::state::ListingStore::count_live).
    pub(super) async fn count_scheduled_live(&self) -> Result<u64> {
        let before = format!("({ENDED}");
        let count = redis::cmd("ZCOUNT")
            .arg((self.due_key(), "-inf", before))
            .to_owned();
        self.link.command(&count).await
    }

    /// The upload of an entry, if it is due; otherwise corrects the entry, and the other indexes.
    async fn check_due(&self, entry: Entry, before: Timestamp) -> Result<Option<UploadId>> {
        let Entry { member, due, .. } = &entry;
        let upload = match self.read_summary(&due.id).await {
            // The caller gets the same error when it reads the record, and the other uploads do not wait for it.
            Err(error) if !error.is_retryable() => return Ok(Some(entry.due.id)),
            upload => upload?,
        };
        let due_at = upload.as_ref().and_then(Upload::due_at);
        if due_at.is_some_and(|due_at| due_at <= before) {
            return Ok(Some(entry.due.id));
        }
        if upload.is_none() {
            self.remove_listed(&entry.owner, &entry.listed).await?;
            if let Some(at) = listing_cursor(&entry.listed) {
                self.remove_lost_entries(&entry.owner, &at).await?;
            }
        }
        if !upload.as_ref().is_some_and(Upload::is_live) {
            self.remove_live(&entry.owner, &due.id).await?;
        }
        if let Some(upload) = &upload {
            self.set_entries(upload).await?;
            if upload.phase == Phase::Complete {
                self.compact(upload).await?;
            }
        }
        let mut invocation = SCRIPTS.repair_due.key(self.due_key());
        invocation
            .arg(member)
            .arg(entry.score)
            .arg(
                upload
                    .as_ref()
                    .and_then(next_look)
                    .map_or_else(String::new, |score| score.to_string()),
            )
            .arg(upload.as_ref().map_or(0, removal_time));
        self.link.script::<()>(&invocation).await?;
        Ok(None)
    }

    /// Makes the record of an upload smaller.
    async fn compact(&self, upload: &Upload) -> Result<()> {
        let Some(header) = record::compact_json(upload)? else {
            return Ok(());
        };
        let mut arguments = vec![upload.version.to_string(), header];
        arguments.extend(record::COMPACT_FIELDS.map(str::to_owned));
        self.invoke(&SCRIPTS.compact, &upload.id, &arguments).await
    }

    /// See [`ScheduleStore::lease`](upload_gateway_core::state::ScheduleStore::lease); a duration of zero releases the lease.
    pub(super) async fn set_lease(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<bool> {
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let mut invocation = SCRIPTS.lease.key(self.key(&format!("lease:{name}")));
        invocation.arg(holder).arg(lasts.min(ENDED));
        self.link.script(&invocation).await
    }
}

/// A time as a part of a score.
fn time(time: Timestamp) -> u64 {
    time.0.min(ENDED - 1)
}

/// The score of the time at which the sweeper looks at the upload next: when it is due, or when its record is gone. `None`:
/// never.
fn next_look(upload: &Upload) -> Option<u64> {
    let at = upload.due_at().unwrap_or_else(|| state::removed_at(upload));
    let is_ever = at < Timestamp::never();
    let offset = if upload.is_live() { 0 } else { ENDED };
    is_ever.then(|| offset + time(at))
}

/// The member of an upload. It names the upload, its member of the listing, and the listing.
fn due_member(upload: &Upload) -> String {
    let age = age(upload.created_at);
    format!("{}:{age}:{}", upload.id, owner_text(&upload.owner))
}

// === impl Entry ===

impl Entry {
    /// A member with its score, of which `offset` is not a part of the time.
    pub(super) fn new(member: String, score: u64, offset: u64) -> Result<Self> {
        let at = Timestamp(score.saturating_sub(offset));
        let mut fields = member.splitn(3, ':');
        let (id, age, owner) = (fields.next(), fields.next(), fields.next());
        let (Some(id), Some(age), Some(owner)) = (id, age, owner) else {
            return Err(Error::fault(
                "redis holds an invalid member among the due uploads",
            ));
        };
        let listed = format!("{age}:{id}");
        let owner = parse_owner(owner)
            .ok_or_else(|| Error::fault("redis holds an invalid owner among the due uploads"))?;
        let id = id.parse().map_err(unreadable)?;
        Ok(Self {
            member,
            score,
            due: Due { at, id },
            listed,
            owner,
        })
    }
}

fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal(
        "redis holds an invalid upload id among the due uploads",
        cause,
    )
}
