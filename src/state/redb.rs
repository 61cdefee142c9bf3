//! The embedded state store: one [redb](https://www.redb.org) file, locked by the process that has it open.
//!
//! Every write is durable before the call returns; those that wait at the same time share a transaction. The conditions of each write are those of the Redis
//! scripts. Records are removed [`RECORD_GRACE_SECONDS`](upload_gateway_core::state::RECORD_GRACE_SECONDS) after they
//! expire: all of them when the file is opened, a few at each create. The file holds the version of its format.

mod due;
mod entries;
mod failure;
mod file;
mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../fuzz/checks/redb.rs"]
pub mod fuzzing;
mod listing;
mod lists;
mod open;
mod parts;
mod record;
mod tables;
mod writes;

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::redb::{Database, ReadableDatabase};
use async_trait::async_trait;
use tokio::{sync::Mutex, task::spawn_blocking};
use upload_gateway_core::{
    error::Result,
    state::{
        ChangeWatch, Changes, Creation, Due, DuePage, MemoryStore, Note, NoteStore, PartRecord,
        PartStore, Predecessor, RecordStore, ScheduleStore, StateStore, TakeoverWatch, Takeovers,
        Times, Update, removed_at,
    },
    upload::{
        Claim, Claims, Owner, Part, Parts, Phase, Secret, Timestamp, Upload, UploadId, WriterTag,
    },
};

pub use self::open::OpenError;
use self::{
    failure::internal,
    file::File,
    open::open,
    record::Record,
    tables::{Snapshot, Tables},
    writes::Writes,
};
use super::searches::Searches;

/// How many expired records a create removes at most: more than it adds, so that they cannot accumulate.
const REMOVALS_PER_CREATE: usize = 4;

/// How many records one transaction adds to the indexes when a file of an earlier release is opened.
const INDEXED_AT_ONCE: usize = 10_000;

/// The embedded state store. Clones share one file.
///
/// ```no_run
/// # use upload_gateway::state::redb::{OpenError, Redb};
/// # async fn open() -> Result<Redb, OpenError> {
/// Redb::open("data/state.redb").await
/// # }
/// ```
#[derive(Clone)]
pub struct Redb {
    file: File,
    writes: Writes,
    /// Held by one read of a listing at a time: it reads up to a thousand records, and several would leave no processor to
    /// short calls.
    page_turn: Arc<Mutex<()>>,
    searches: Searches,
    takeovers: Takeovers,
    changes: Changes,
}

// === impl Redb ===

impl Redb {
    /// Opens the file at `path`; creates it, and its directory, if it does not exist.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let unusable = {
            let path = path.clone();
            move |source| OpenError::Unusable { path, source }
        };
        let opened = path.clone();
        let database = spawn_blocking(move || open(&opened))
            .await
            .map_err(|cause| unusable.clone()(cause.into()))??;
        let store = Self {
            file: File::new(path, database),
            writes: Writes::default(),
            page_turn: Arc::default(),
            searches: Searches::default(),
            takeovers: Takeovers::default(),
            changes: Changes::default(),
        };
        // Every change is made by this process.
        store.changes.set_connected(true);
        let now = now();
        store
            .write(move |tables| tables.remove_expired(now, usize::MAX))
            .await
            .map_err(|cause| unusable.clone()(cause.into()))?;
        // Of a file of an earlier release.
        let index = || store.write(|tables| tables.index_more(INDEXED_AT_ONCE));
        while index()
            .await
            .map_err(|cause| unusable.clone()(cause.into()))?
        {}
        Ok(store)
    }

    /// Replaces a record of version `upload.version`, written by `writer` and, if `seen` is given, with that
    /// `updated_at`.
    async fn replace(
        &self,
        upload: &Upload,
        writer: Option<WriterTag>,
        seen: Option<Timestamp>,
    ) -> Result<Update> {
        let (id, upload) = (upload.id.clone(), upload.clone());
        let replaced = self.write(move |tables| {
            let Some(record) = tables.record(&upload.id)? else {
                return Ok(Update::Missing);
            };
            let next = upload.version + 1;
            if record.is_echo_of(&upload) {
                return Ok(Update::Updated(next));
            }
            let is_touched = seen.is_some_and(|seen| seen != record.updated_at);
            let is_seen = (record.version, record.writer) == (upload.version, writer);
            if !is_seen || is_touched {
                let current = tables.whole(record)?;
                return Ok(Update::Conflict(Box::new(current)));
            }
            if let Some(fingerprint) = &upload.fingerprint
                && !upload.is_indexed()
            {
                tables.release(fingerprint, &upload.id)?;
            }
            let mut counts = record.counts();
            if !upload.is_live() {
                tables.remove_parts_and_claims(&upload.id)?;
                tables.remove_at(removed_at(&upload), upload.id.as_str())?;
                counts = Parts::default();
            }
            let mut updated = Record::updated(upload.clone(), &counts);
            updated.scheduled_at = record.scheduled_at;
            // A claim may have begun a new cut since the caller read the record.
            updated.cut = updated.cut.max(record.cut);
            tables.schedule(&mut updated)?;
            match upload.phase {
                Phase::Deleting => tables.listings.remove(&updated.written)?,
                phase => {
                    if phase != record.written.phase {
                        tables.listings.entries.set(&updated.written)?;
                    }
                    tables.listings.mark_live(&updated.written)?;
                }
            }
            tables.store(&updated)?;
            Ok(Update::Updated(next))
        });
        let replaced = replaced.await?;
        self.changes.notify(&id);
        Ok(replaced)
    }

    /// Runs `work` in a durable transaction. Stores nothing of it if it fails.
    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tables<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writes.run(&self.file, work).await
    }

    /// Runs `work` on a snapshot of the tables; does not block writes.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let read = move |database: &Database| {
            let transaction = database.begin_read().map_err(internal)?;
            work(&Snapshot::open(&transaction)?)
        };
        self.file.read(read).await
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Redb")
    }
}

#[async_trait]
impl RecordStore for Redb {
    async fn create(&self, upload: &Upload, max_live: u64) -> Result<Creation> {
        let upload = upload.clone();
        self.write(move |tables| {
            tables.remove_expired(upload.updated_at, REMOVALS_PER_CREATE)?;
            if tables.record(&upload.id)?.is_some() {
                return Ok(Creation::Created);
            }
            if let Some(fingerprint) = &upload.fingerprint
                && let Some(known) = tables.holder(fingerprint)?
                && known.is_indexed()
            {
                return Ok(Creation::Exists(Box::new(known)));
            }
            if tables.listings.live_of(&upload.owner)? >= max_live {
                return Ok(Creation::Full);
            }
            if let Some(fingerprint) = &upload.fingerprint {
                tables.hold(fingerprint, &upload.id)?;
            }
            tables.insert(upload.clone())?;
            Ok(Creation::Created)
        })
        .await
    }

    async fn find_identical(&self, upload: &Upload) -> Result<Option<Upload>> {
        let Some(fingerprint) = upload.fingerprint.clone() else {
            return Ok(None);
        };
        self.read(move |snapshot| snapshot.holder(&fingerprint))
            .await
    }

    async fn get(&self, id: &UploadId) -> Result<Option<Upload>> {
        let id = id.clone();
        self.read(move |snapshot| snapshot.upload(&id)).await
    }

    async fn summary(&self, id: &UploadId) -> Result<Option<Upload>> {
        let id = id.clone();
        self.read(move |snapshot| snapshot.summary(&id)).await
    }

    async fn observe(&self, id: &UploadId) -> Result<Option<Upload>> {
        self.summary(id).await
    }

    fn watch_changes(&self, id: &UploadId) -> ChangeWatch {
        self.changes.watch(id)
    }

    async fn take_over(
        &self,
        id: &UploadId,
        writer: WriterTag,
        from: Predecessor,
        times: Times,
    ) -> Result<Option<Upload>> {
        let key = id.clone();
        let taken = self
            .write(move |tables| {
                let Some(mut record) = tables.record(&key)? else {
                    return Ok(None);
                };
                // A writer that is already set is accepted: its first call may have succeeded without its reply.
                let may = match from {
                    Predecessor::Any => true,
                    Predecessor::Only(other) => {
                        record.writer == other || record.writer == Some(writer)
                    }
                };
                if may && record.written.phase == Phase::Open {
                    tables.parts.remove_beyond(&key, record.committed)?;
                    record.take_over(writer, times);
                    tables.schedule(&mut record)?;
                    tables.store(&record)?;
                }
                tables.whole(record).map(Some)
            })
            .await?;
        if taken.as_ref().and_then(|upload| upload.writer) == Some(writer) {
            self.takeovers.notify(id, writer);
            self.changes.notify(id);
        }
        Ok(taken)
    }

    fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch {
        self.takeovers.watch(id)
    }

    async fn update(&self, upload: &Upload, writer: Option<WriterTag>) -> Result<Update> {
        self.replace(upload, writer, None).await
    }

    async fn update_untouched(&self, upload: &Upload, seen: Timestamp) -> Result<Update> {
        self.replace(upload, upload.writer, Some(seen)).await
    }

    async fn give(&self, upload: &Upload, owner: &Owner) -> Result<Update> {
        let (upload, owner) = (upload.clone(), owner.clone());
        self.write(move |tables| {
            let Some(record) = tables.record(&upload.id)? else {
                return Ok(Update::Missing);
            };
            let next = upload.version + 1;
            if (record.version, &record.written.owner) == (next, &owner) {
                return Ok(Update::Updated(next));
            }
            if (record.version, record.writer) != (upload.version, upload.writer) {
                let current = tables.whole(record)?;
                return Ok(Update::Conflict(Box::new(current)));
            }
            if let Some(fingerprint) = &record.written.fingerprint {
                tables.release(fingerprint, &upload.id)?;
            }
            tables.listings.remove(&record.written)?;
            let mut given = record;
            given.give(owner.clone());
            tables.listings.add(&given.written)?;
            tables.listings.mark_live(&given.written)?;
            tables.store(&given)?;
            Ok(Update::Updated(next))
        })
        .await
    }
}

#[async_trait]
impl PartStore for Redb {
    async fn record_parts(
        &self,
        id: &UploadId,
        writer: WriterTag,
        version: u64,
        parts: &[Part],
        times: Times,
    ) -> Result<PartRecord> {
        let (key, parts) = (id.clone(), parts.to_vec());
        let recorded = self.write(move |tables| {
            let id = &key;
            let Some(mut record) = tables.record(id)? else {
                return Ok(PartRecord::Missing);
            };
            // Checked before the phase: the stream that took the upload over may have finished it.
            if record.writer != Some(writer) {
                return Ok(PartRecord::TakenOver);
            }
            if record.version < version {
                return Ok(PartRecord::Missing);
            }
            if record.written.phase != Phase::Open {
                return Ok(PartRecord::NotOpen(record.written.phase));
            }
            for part in &parts {
                let is_other = tables.parts.put(id, part)?;
                if is_other && part.number <= record.committed {
                    record.rewritten += 1;
                }
                record.committed = tables.parts.contiguous_from(id, record.committed)?;
            }
            tables.parts.drop_digests(id, record.committed)?;
            record.set(times);
            tables.store(&record)?;
            Ok(PartRecord::Recorded {
                committed: record.committed,
            })
        });
        let recorded = recorded.await?;
        self.changes.notify(id);
        Ok(recorded)
    }

    async fn committed_parts(
        &self,
        id: &UploadId,
        after: u32,
        limit: u32,
    ) -> Result<Option<Vec<Part>>> {
        let id = id.clone();
        self.read(move |snapshot| snapshot.committed_parts(&id, after, limit))
            .await
    }

    async fn claim(
        &self,
        id: &UploadId,
        owner: &Owner,
        claims: &[Claim],
        times: Times,
    ) -> Result<Option<Upload>> {
        let (id, owner) = (id.clone(), owner.clone());
        let claims: Claims = claims.iter().copied().collect();
        self.write(move |tables| {
            let record = tables.record(&id)?;
            let Some(mut record) = record.filter(|record| record.written.owner == owner) else {
                return Ok(None);
            };
            let planned = 1..=record.written.last_part();
            let numbers = || claims.iter().map(|claim| claim.number);
            if record.written.phase == Phase::Open
                && numbers().all(|number| planned.contains(&number))
            {
                let known = tables.summary(record.clone(), numbers())?.parts;
                let fitting = claims.iter().filter(|claim| !known.contradict(claim));
                tables.record_claims(&mut record, fitting)?;
                record.set(times);
                tables.store(&record)?;
            }
            tables.summary(record, numbers()).map(Some)
        })
        .await
    }
}

#[async_trait]
impl ScheduleStore for Redb {
    async fn due(&self, before: Timestamp, after: Option<&Due>, limit: usize) -> Result<DuePage> {
        let after = after.cloned();
        self.write(move |tables| {
            tables.remove_expired(now().min(before), limit)?;
            tables.due(before, after.as_ref(), limit.max(1))
        })
        .await
    }

    async fn lease(&self, name: &str, holder: &str, lasts: Duration) -> Result<bool> {
        let (name, holder, now) = (name.to_owned(), holder.to_owned(), now());
        self.write(move |tables| tables.lease(&name, &holder, now, now.plus(lasts)))
            .await
    }

    async fn release(&self, name: &str, holder: &str) -> Result<()> {
        self.lease(name, holder, Duration::ZERO).await.map(drop)
    }
}

/// Records are in the file.
impl MemoryStore for Redb {}

#[async_trait]
impl NoteStore for Redb {
    async fn note(&self, note: &Note) -> Result<Option<String>> {
        let note = note.to_string();
        self.read(move |snapshot| snapshot.note(&note)).await
    }

    async fn replace_note(&self, note: &Note, seen: Option<&str>, text: &str) -> Result<bool> {
        let (note, seen) = (note.to_string(), seen.map(str::to_owned));
        let text = text.to_owned();
        self.write(move |tables| tables.replace_note(&note, seen.as_deref(), &text))
            .await
    }
}

#[async_trait]
impl StateStore for Redb {
    async fn secret(&self, offered: &Secret) -> Result<Secret> {
        let offered = offered.clone();
        self.write(move |tables| tables.secret(&offered)).await
    }

    async fn check(&self) -> Result<()> {
        self.write(|tables| tables.probe(now())).await
    }

    fn is_usable(&self) -> bool {
        self.file.is_open()
    }
}

/// The present time; the epoch if the clock is before it, so that nothing counts as expired.
fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(0).plus(elapsed)
}
