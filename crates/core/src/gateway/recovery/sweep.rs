//! The sweeper. It periodically expires uploads, finishes commits whose committer died, removes objects that clients
//! put after their upload had ended, and ends orphaned sessions.
//!
//! It first changes the record, by compare-and-set, and then removes what the store has of the upload. If a pass dies
//! in between, a later pass finds the session. Two passes at the same time do no harm. The age of sessions is measured
//! only by the clock of the store. Azure discards uncommitted blocks itself.

mod settle;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{inspect::Inspector, memory::RecordMemory, session::Sessions};
use crate::{
    blobs::{OpenSession, Session},
    error::{Reason, Result},
    gateway::{
        commit::Commits,
        records::{Records, times::CLOCK_MARGIN},
        storage::{Storage, Storages},
    },
    state::ScheduleStore,
    upload::{Phase, Timestamp, Upload, UploadId},
};

/// A session without a record is ended when it is this much older than the oldest upload can be.
const SESSION_MARGIN: Duration = Duration::from_secs(60 * 60);

/// How long the lease of a sweeper that died keeps other replicas from sweeping.
const LEASE: Duration = Duration::from_secs(60);

/// How many uploads are read from the index in one page.
const PAGE: usize = 100;

/// How many commits run beside a pass.
const MAX_COMMITS: usize = 4;

/// How many uploads a pass remembers for a second observation, and how many that wait for one of the commits to end. A
/// later pass handles the others.
const MAX_REMEMBERED: usize = 10_000;

/// An upload whose commit has ended, and the result.
type Ended = (Upload, Result<()>);

/// The options of a pass.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Only count what a pass would do.
    pub dry_run: bool,
    /// The largest number of uploads and sessions that are handled per second.
    pub operations_per_second: u32,
    /// The age, by the store's clock, at which sessions without a record are ended. `None`: the maximum age of uploads
    /// plus a margin, so that no resume token can need the session any more.
    pub session_age: Option<Duration>,
    /// Skip the pass if another replica has started one within this time.
    pub interval: Option<Duration>,
}

/// What a pass did, or what a dry run would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// Due uploads and listed sessions.
    pub examined: u64,
    /// Expired uploads that were aborted.
    pub expired: u64,
    /// Expired uploads that became COMPLETE, because a client had made their object.
    pub completed: u64,
    /// Commits of dead committers that were finished or rejected.
    pub finished_commits: u64,
    /// Files that had expired and were deleted.
    pub expired_files: u64,
    /// ABORTED and DELETING uploads that were cleared from the store for the last time.
    pub cleared: u64,
    /// Old sessions without a record that were ended.
    pub aborted_sessions: u64,
    /// Records of COMPLETE uploads that were removed to make room in the state store; in a dry run, those of one sample.
    pub removed_records: u64,
    /// Failures. A later pass handles them.
    pub failures: u64,
}

/// Sweeps all storages.
#[derive(Debug)]
pub struct Sweeper {
    pub(in crate::gateway) schedule: Arc<dyn ScheduleStore>,
    /// Without retries: a lease that is not released expires soon.
    pub(in crate::gateway) single_try: Arc<dyn ScheduleStore>,
    pub(in crate::gateway) records: Arc<Records>,
    pub(in crate::gateway) storages: Storages,
    pub(in crate::gateway) sessions: Arc<Sessions>,
    pub(in crate::gateway) inspector: Arc<Inspector>,
    pub(in crate::gateway) commits: Arc<Commits>,
    pub(in crate::gateway) upload_max_age: Duration,
    /// Makes room in the state store.
    pub memory: RecordMemory,
}

/// A running pass.
struct Pass<'a> {
    sweeper: &'a Sweeper,
    sweep: &'a Sweep,
    stop: &'a CancellationToken,
    holder: String,
    renewed: Instant,
    pace: Interval,
    /// When the pass started.
    started: Timestamp,
    /// The uploads of which this pass made the first observation, and when the second one counts.
    observed: Vec<(UploadId, Timestamp)>,
    /// The commits that run beside the pass.
    commits: JoinSet<Ended>,
    /// The uploads whose commit waits until fewer run.
    waiting: VecDeque<UploadId>,
    /// The storages that are unavailable. A later pass handles the rest of their uploads and sessions.
    unavailable: HashSet<String>,
    report: SweepReport,
}

// === impl SweepReport ===

impl SweepReport {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        let Self { examined, .. } = *self;
        *self
            == Self {
                examined,
                ..Self::default()
            }
    }
}

// === impl Sweeper ===

impl Sweeper {
    /// Makes one pass over all uploads and sessions, or until `stop` is cancelled. `None` if another replica is
    /// sweeping, or has just done so. A dry run needs no lease.
    ///
    /// # Errors
    /// `Unavailable` if the state store is unavailable. Other failures are counted and left to a later pass.
    pub async fn sweep(
        &self,
        sweep: &Sweep,
        stop: &CancellationToken,
    ) -> Result<Option<SweepReport>> {
        let mut pass = Pass::new(self, sweep, stop);
        let may_sweep = sweep.dry_run || (pass.acquire_turn().await? && pass.renew_lease().await?);
        if !may_sweep {
            return Ok(None);
        }
        let swept = pass.run().await;
        if !sweep.dry_run {
            pass.release().await;
        }
        swept.map(|()| Some(pass.report))
    }
}

// === impl Pass ===

impl<'a> Pass<'a> {
    fn new(sweeper: &'a Sweeper, sweep: &'a Sweep, stop: &'a CancellationToken) -> Self {
        let mut pace = interval(Duration::from_secs(1) / sweep.operations_per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            sweeper,
            sweep,
            stop,
            holder: format!("{:016x}", rand::random::<u64>()),
            renewed: Instant::now(),
            pace,
            started: sweeper.records.now(),
            observed: Vec::new(),
            commits: JoinSet::new(),
            waiting: VecDeque::new(),
            unavailable: HashSet::new(),
            report: SweepReport::default(),
        }
    }

    /// Whether no other replica has started a pass in this interval. This lease is never released; it expires.
    async fn acquire_turn(&self) -> Result<bool> {
        let Some(interval) = self.sweep.interval else {
            return Ok(true);
        };
        let schedule = &self.sweeper.schedule;
        schedule.lease("sweep-turn", &self.holder, interval).await
    }

    async fn renew_lease(&mut self) -> Result<bool> {
        self.renewed = Instant::now();
        let schedule = &self.sweeper.schedule;
        schedule.lease("sweep", &self.holder, LEASE).await
    }

    async fn release(&self) {
        if let Err(error) = self.sweeper.single_try.release("sweep", &self.holder).await {
            tracing::debug!(%error, "the sweeper's lease is left to expire");
        }
    }

    async fn run(&mut self) -> Result<()> {
        self.make_room().await?;
        self.due_uploads().await?;
        for storage in self.sweeper.storages.iter() {
            let swept = self.sessions(storage).await;
            self.log(swept, &storage.id).await?;
        }
        Ok(())
    }

    async fn make_room(&mut self) -> Result<()> {
        let memory = &self.sweeper.memory;
        let run = Box::pin(memory.run(self.sweep.dry_run, self.stop)).await;
        let failed = match run {
            Ok(removals) => {
                self.report.removed_records += removals.removed;
                removals.failed
            }
            Err(error) => Some(error),
        };
        self.log(failed.map_or(Ok(()), Err), "").await
    }

    /// Waits until the next operation is allowed. Returns `false` if the pass must end.
    async fn next_permit(&mut self) -> Result<bool> {
        tokio::select! {
            _ = self.pace.tick() => {}
            () = self.stop.cancelled() => {}
        }
        self.may_continue().await
    }

    /// Whether the pass may continue: it has the lease, and is not to stop.
    async fn may_continue(&mut self) -> Result<bool> {
        if self.stop.is_cancelled() {
            return Ok(false);
        }
        if self.sweep.dry_run || self.renewed.elapsed() < LEASE / 3 {
            return Ok(true);
        }
        self.renew_lease().await
    }

    /// Handles all due uploads, and then once more those whose first observation was made in this pass.
    async fn due_uploads(&mut self) -> Result<()> {
        let sweeper = self.sweeper;
        let before = sweeper.records.now().minus(CLOCK_MARGIN);
        let mut after = None;
        loop {
            let page = sweeper.schedule.due(before, after.as_ref(), PAGE).await?;
            for id in &page.uploads {
                if !self.next_permit().await? {
                    return Ok(());
                }
                self.report.examined += 1;
                self.settle_known(id).await?;
            }
            after = page.next;
            if after.is_none() || !self.next_permit().await? {
                break;
            }
        }
        self.second_observations().await?;
        self.finish_commits().await?;
        // Commits that have ended meanwhile may have made first observations, too.
        self.second_observations().await?;
        self.finish_commits().await
    }

    async fn settle_known(&mut self, id: &UploadId) -> Result<()> {
        match self.sweeper.records.find_any(id).await {
            Ok(Some(upload)) => self.settle(upload).await,
            Ok(None) => Ok(()),
            Err(error) => self.log(Err(error), "").await,
        }
    }

    async fn second_observations(&mut self) -> Result<()> {
        for (id, settles_at) in std::mem::take(&mut self.observed) {
            while self.sweeper.records.now() < settles_at {
                if !self.wait(settles_at).await? {
                    return Ok(());
                }
            }
            if !self.next_permit().await? {
                return Ok(());
            }
            self.settle_known(&id).await?;
        }
        Ok(())
    }

    /// Waits for the commits that run beside the pass, and starts those that wait.
    async fn finish_commits(&mut self) -> Result<()> {
        loop {
            if self.commits.len() < MAX_COMMITS
                && let Some(id) = self.waiting.pop_front()
            {
                self.settle_known(&id).await?;
            } else if self.commits.is_empty() || !self.wait(Timestamp::never()).await? {
                return Ok(());
            }
        }
    }

    /// Waits until a commit has ended, until `settles_at`, or until the lease must be renewed. Returns `false` if the pass
    /// must end.
    async fn wait(&mut self, settles_at: Timestamp) -> Result<bool> {
        let left = settles_at.0.saturating_sub(self.sweeper.records.now().0);
        let left = Duration::from_millis(left.max(1)).min(LEASE / 3);
        tokio::select! {
            Some(ended) = self.commits.join_next() => self.commit_ended(ended).await?,
            () = sleep(left) => {}
            () = self.stop.cancelled() => {}
        }
        self.may_continue().await
    }

    /// Ends an upload if it is due.
    async fn settle(&mut self, upload: Upload) -> Result<()> {
        let storage_id = upload.storage_id.clone();
        if self.unavailable.contains(&storage_id) {
            return Ok(());
        }
        let id = upload.id.clone();
        let now = self.sweeper.records.now();
        let surely = now.minus(CLOCK_MARGIN);
        let lease_ended = upload.lease.is_none_or(|lease| lease.until <= surely);
        let denial = upload.evidence.denial;
        let settled = match upload.phase {
            Phase::Open if upload.has_expired(surely) => self.expire(upload).await,
            Phase::Open if denial.is_some_and(|denial| denial.settles_at <= now) => {
                self.reconsider(upload).await
            }
            Phase::Committing if lease_ended && upload.ends_at <= surely => {
                self.end_commit(upload).await
            }
            Phase::Committing if lease_ended => {
                self.finish_commit(upload);
                Ok(())
            }
            Phase::Complete if upload.file_expires_at.is_some_and(|at| at <= surely) => {
                self.delete_expired(upload).await
            }
            Phase::Aborted | Phase::Deleting
                if upload.due_at().is_some_and(|due| due <= surely) =>
            {
                self.clear(upload).await
            }
            _ => Ok(()),
        };
        self.note(&id, settled, &storage_id).await
    }

    /// Notes an upload of which this pass made the first observation. Other failures are logged.
    async fn note(&mut self, id: &UploadId, settled: Result<()>, storage_id: &str) -> Result<()> {
        let Err(error) = &settled else { return Ok(()) };
        if error.operator_code().is_none()
            && error.is_retryable()
            && let Ok(Some(upload)) = self.sweeper.records.find(id).await
            && let Some(denial) = upload.evidence.denial
            // With an older denial, the store failed before the second observation.
            && denial.settles_at > self.started
        {
            if self.observed.len() < MAX_REMEMBERED {
                self.observed.push((id.clone(), denial.settles_at));
            }
            return Ok(());
        }
        self.log(settled, storage_id).await
    }

    async fn sessions(&mut self, storage: &Storage) -> Result<()> {
        if self.unavailable.contains(&storage.id) {
            return Ok(());
        }
        let sweeper = self.sweeper;
        let max_age = sweeper.upload_max_age + SESSION_MARGIN;
        let min_age = self.sweep.session_age.unwrap_or(max_age);
        let prefix = storage.key.prefix(&storage.prefix);
        let mut after = None;
        loop {
            if !self.next_permit().await? {
                return Ok(());
            }
            let page = storage.store.list_sessions(&prefix, after.as_deref());
            let Some(page) = page.await? else {
                return Ok(());
            };
            for session in &page.sessions {
                let Some(id) = storage.key.upload_of(&storage.prefix, &session.key) else {
                    continue;
                };
                self.report.examined += 1;
                if session.initiated_at.plus(min_age) > page.now {
                    continue;
                }
                if self.unavailable.contains(&storage.id) || !self.next_permit().await? {
                    return Ok(());
                }
                let ended = self.end_session(storage, &id, session).await;
                self.log(ended, &storage.id).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Ends an old session, unless a live upload has it. That upload has been due for long, and its index entry was
    /// lost.
    async fn end_session(
        &mut self,
        storage: &Storage,
        id: &UploadId,
        session: &OpenSession,
    ) -> Result<()> {
        let sweeper = self.sweeper;
        let found = sweeper.records.find(id).await?;
        let has_session =
            |upload: &Upload| upload.is_live() && upload.session.as_ref() == Some(&session.id);
        if let Some(upload) = found.filter(has_session) {
            return self.settle(upload).await;
        }
        if !self.sweep.dry_run {
            let OpenSession { key, id, .. } = session;
            storage
                .store
                .abort(&Session {
                    key,
                    id,
                    scope: None,
                })
                .await?;
        }
        self.report.aborted_sessions += 1;
        tracing::info!(upload_id = %id, dry_run = self.sweep.dry_run, "ended an orphaned session");
        Ok(())
    }

    /// Logs and counts a failure, so that the pass continues with the next item. If the whole storage is unavailable, its
    /// other items wait for a later pass. An unavailable state store ends the pass.
    async fn log(&mut self, outcome: Result<()>, storage_id: &str) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        if error.reason() == Reason::StateUnavailable {
            return Err(error);
        }
        self.report.failures += 1;
        let cause = error.causes();
        tracing::warn!(storage_id, %error, cause, "an operation of the sweeper failed: {error}");
        // The failure of one item says nothing about the others.
        let is_unavailable = match self.sweeper.storages.get(storage_id) {
            Ok(storage) => error.is_retryable() && storage.single_try.check().await.is_err(),
            Err(_) => true,
        };
        if is_unavailable {
            self.unavailable.insert(storage_id.to_owned());
        }
        Ok(())
    }
}
