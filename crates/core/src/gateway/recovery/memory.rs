//! Keeps the records of COMPLETE uploads from filling the memory of the state store.
//!
//! Above a limit, the oldest records are removed whose files carry one of their own, from which a call with their id rebuilds
//! them. An index by age would need memory itself, so the age is compared in samples, and the oldest quarter of each is
//! removed, or half if that is not enough, much as Redis evicts keys. Nothing is removed without proof: one negative or failed answer of a store keeps the
//! record.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    gateway::records::Records,
    meter::{Done, Meter},
    state::{Memory, MemoryStore, ScheduleStore},
    upload::{Phase, Upload},
};

/// Removals end at this share of the limit, in percent.
const TARGET: u64 = 95;

/// Above this share of the limit, in percent, more comes in than is removed, so more of each sample is removed.
const TOO_MUCH: u64 = 110;

/// The largest number of samples in a run. The next run continues.
const MAX_SAMPLES: usize = 100;

/// How many records without proof a run looks at, before it ends.
const MAX_UNPROVEN: usize = 1_000;

/// How many records are checked and removed at a time.
const AT_A_TIME: usize = 256;

/// How many records are at least checked together, if few more are to be removed.
const MIN_BATCH: usize = 16;

/// How long no run begins after one that failed or found nothing to remove. The proofs are requests to the stores, which cost money.
const REST: Duration = Duration::from_secs(5 * 60);

/// How long the lease of a run lasts that died.
const LEASE: Duration = Duration::from_secs(60);

/// The time between two warnings of all replicas.
const WARNED: Duration = Duration::from_secs(60 * 60);

/// Removes records of COMPLETE uploads.
#[derive(Debug)]
pub struct RecordMemory {
    store: Arc<dyn MemoryStore>,
    schedule: Arc<dyn ScheduleStore>,
    records: Arc<Records>,
    /// The configured limit, in bytes.
    max: Option<u64>,
    meter: Arc<dyn Meter>,
    /// Where the next sample starts.
    position: AtomicU64,
    rests_until: Mutex<Option<Instant>>,
}

/// What a run has done.
#[derive(Debug, Default)]
pub(super) struct Removals {
    pub(super) removed: u64,
    unproven: usize,
    /// The first failure. The records stay, and a later run checks them again.
    pub(super) failed: Option<Error>,
}

/// What became of one record.
enum Outcome {
    Removed,
    Unproven,
}

// === impl RecordMemory ===

impl RecordMemory {
    /// Removes records from `state` above the limit `max`, in bytes; `None`: half of its memory.
    pub(in crate::gateway) fn new<S>(
        state: &Arc<S>,
        records: &Arc<Records>,
        max: Option<u64>,
        meter: &Arc<dyn Meter>,
    ) -> Self
    where
        S: MemoryStore + ScheduleStore + 'static,
    {
        Self {
            store: Arc::clone(state) as _,
            schedule: Arc::clone(state) as _,
            records: Arc::clone(records),
            max,
            meter: Arc::clone(meter),
            position: AtomicU64::new(0),
            rests_until: Mutex::default(),
        }
    }

    /// Removes records while the state store uses more memory than the limit, in one run after the other as long as most records
    /// that are checked can be removed. Does nothing if another replica does that, or the last run has just found nothing to
    /// remove. Returns how many were removed.
    ///
    /// # Errors
    /// `Unavailable` if the state store is unavailable. The first failure of a store, if nothing was removed.
    pub async fn make_room(&self, stop: &CancellationToken) -> Result<u64> {
        let mut removed = 0;
        while !self.rests() {
            let removals = self.run(false, stop).await.inspect_err(|_| self.rest())?;
            removed += removals.removed;
            match removals.failed {
                Some(error) if removed == 0 => return Err(error),
                _ if removals.removed <= removals.unproven as u64 => {
                    // Each proof is a request to a store.
                    self.rest();
                    break;
                }
                _ => {}
            }
        }
        Ok(removed)
    }

    /// As [`RecordMemory::make_room`], also after a run that found nothing to remove. A dry run counts what it would remove of
    /// one sample.
    pub(super) async fn run(&self, dry_run: bool, stop: &CancellationToken) -> Result<Removals> {
        let mut removals = Removals::default();
        let Some(memory) = self.above(100).await? else {
            return Ok(removals);
        };
        let holder = format!("{:016x}", rand::random::<u64>());
        if dry_run {
            self.remove_oldest(&memory, true, &mut removals).await?;
            return Ok(removals);
        }
        if !self.schedule.lease("room", &holder, LEASE).await? {
            return Ok(removals);
        }
        let ran = self.remove_while_above(&holder, stop, &mut removals).await;
        self.schedule.release("room", &holder).await?;
        ran?;
        if removals.removed == 0 {
            self.rest();
        }
        self.warn(&holder, &removals).await?;
        Ok(removals)
    }

    async fn remove_while_above(
        &self,
        holder: &str,
        stop: &CancellationToken,
        removals: &mut Removals,
    ) -> Result<()> {
        for _ in 0..MAX_SAMPLES {
            let Some(memory) = self.above(TARGET).await? else {
                return Ok(());
            };
            let has_lease = self.schedule.lease("room", holder, LEASE).await?;
            if stop.is_cancelled() || !has_lease || removals.unproven >= MAX_UNPROVEN {
                return Ok(());
            }
            self.remove_oldest(&memory, false, removals).await?;
        }
        Ok(())
    }

    /// The memory of the state store, if it uses more than this percentage of the limit.
    async fn above(&self, percent: u64) -> Result<Option<Memory>> {
        let memory = self.store.memory().await?;
        Ok(memory.filter(|memory| self.is_above(memory, percent)))
    }

    fn is_above(&self, memory: &Memory, percent: u64) -> bool {
        let limit = memory.limit(self.max);
        limit.is_some_and(|limit| memory.used > (limit / 100).saturating_mul(percent))
    }

    /// Removes the oldest of the next sample: a quarter, or half.
    async fn remove_oldest(
        &self,
        memory: &Memory,
        dry_run: bool,
        removals: &mut Removals,
    ) -> Result<()> {
        let position = self.position.load(Ordering::Relaxed);
        let sample = self.store.sample(&memory.node, position).await?;
        self.position.store(sample.next, Ordering::Relaxed);
        let mut uploads = sample.uploads;
        let share = if self.is_above(memory, TOO_MUCH) {
            2
        } else {
            4
        };
        let enough = removals.removed + uploads.len().div_ceil(share) as u64;
        uploads.retain(is_removable);
        uploads.sort_by_key(|upload| upload.created_at);
        let mut left = uploads.as_slice();
        while removals.removed < enough && removals.unproven < MAX_UNPROVEN && !left.is_empty() {
            let wanted = usize::try_from(enough - removals.removed).unwrap_or(usize::MAX);
            let some;
            (some, left) = left.split_at(wanted.max(MIN_BATCH).min(left.len()));
            let each: Vec<_> = some
                .iter()
                .map(|upload| self.remove(upload, dry_run))
                .collect();
            let mut outcomes = stream::iter(each).buffer_unordered(AT_A_TIME);
            while let Some(outcome) = outcomes.next().await {
                removals.add(outcome);
            }
        }
        Ok(())
    }

    async fn remove(&self, upload: &Upload, dry_run: bool) -> Result<Outcome> {
        if self.is_copy_of_a_move(upload).await? || !self.records.is_restorable(upload).await? {
            return Ok(Outcome::Unproven);
        }
        if dry_run {
            return Ok(Outcome::Removed);
        }
        if !self.store.remove(upload).await? {
            return Ok(Outcome::Unproven);
        }
        self.meter.note(Done::Removed);
        tracing::debug!(upload_id = %upload.id, "removed the record of a COMPLETE upload to make room");
        Ok(Outcome::Removed)
    }

    /// Whether the source of this copy is not deleted yet: the move continues with the record of the copy.
    async fn is_copy_of_a_move(&self, upload: &Upload) -> Result<bool> {
        let Some(source) = &upload.copy_of else {
            return Ok(false);
        };
        let source = self.records.find_summary(source).await?;
        Ok(source.is_some_and(|source| source.moves_to.as_ref() == Some(&upload.id)))
    }

    /// Warns, once an hour for all replicas.
    async fn warn(&self, holder: &str, removals: &Removals) -> Result<()> {
        if !self.schedule.lease("room-warned", holder, WARNED).await? {
            return Ok(());
        }
        let (removed, error) = (removals.removed, removals.failed.as_ref());
        let error = error.map(ToString::to_string);
        match removed {
            0 => tracing::warn!(
                error,
                "the state store uses more memory than records.max_memory, and no record of a COMPLETE upload was found that \
                 its file carries, too: give it more memory, or uploads will fail with STATE_FULL"
            ),
            _ => tracing::warn!(
                removed,
                error,
                "the state store uses more memory than records.max_memory: the records of the oldest COMPLETE uploads are \
                 removed. Their files are found by their ids and no longer listed; give it more memory to list them"
            ),
        }
        Ok(())
    }

    fn rest(&self) {
        *self.resting() = Some(Instant::now() + REST);
    }

    fn rests(&self) -> bool {
        self.resting().is_some_and(|until| until > Instant::now())
    }

    fn resting(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the file can be all that is left of the upload. The sweeper needs the record of a file that expires, and a rebuilt
/// record has neither a move that has begun, nor that the object was changed by others.
fn is_removable(upload: &Upload) -> bool {
    upload.phase == Phase::Complete
        && upload.moves_to.is_none()
        && upload.file_expires_at.is_none()
        && upload.object_changed_at.is_none()
}

// === impl Removals ===

impl Removals {
    fn add(&mut self, outcome: Result<Outcome>) {
        match outcome {
            Ok(Outcome::Removed) => self.removed += 1,
            Ok(Outcome::Unproven) => self.unproven += 1,
            Err(error) => {
                self.unproven += 1;
                self.failed.get_or_insert(error);
            }
        }
    }
}
