//! The sweeper. It periodically expires uploads, finishes commits whose committer died, removes objects that clients
//! put after their upload had ended, and ends orphaned sessions.
//!
//! It first changes the record, by compare-and-set, and then removes what the store has of the upload. If a pass dies
//! in between, a later pass finds the session. Two passes at the same time do no harm. The age of sessions is measured
//! only by the clock of the store. Azure discards uncommitted blocks itself.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{inspect::Inspector, session::Sessions};
use crate::{
    blobs::{OpenSession, Session},
    error::{Error, Reason, Result},
    gateway::{
        commit::Commits,
        records::Records,
        storage::{Storage, Storages},
    },
    state::ScheduleStore,
    upload::{Event, Phase, Upload, UploadId, policy},
};

/// The largest difference between the clocks of two replicas. An upload expires only after it has expired by all
/// clocks.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// A session without a record is ended when it is this much older than the oldest upload can be.
const SESSION_MARGIN: Duration = Duration::from_secs(60 * 60);

/// How long the lease of a sweeper that died keeps other replicas from sweeping.
const LEASE: Duration = Duration::from_secs(60);

/// How many uploads are read from the index in one page.
const PAGE: usize = 100;

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
    /// ABORTED uploads that were cleared from the store for the last time.
    pub cleared: u64,
    /// Old sessions without a record that were ended.
    pub aborted_sessions: u64,
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
}

/// A running pass.
struct Pass<'a> {
    sweeper: &'a Sweeper,
    sweep: &'a Sweep,
    stop: &'a CancellationToken,
    holder: String,
    renewed: Instant,
    pace: Interval,
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
        self.due_uploads().await?;
        for storage in self.sweeper.storages.iter() {
            let swept = self.sessions(storage).await;
            self.log(swept, &storage.id)?;
        }
        Ok(())
    }

    /// Waits until the next operation is allowed. Returns `false` if the pass must end.
    async fn next_permit(&mut self) -> Result<bool> {
        tokio::select! {
            _ = self.pace.tick() => {}
            () = self.stop.cancelled() => {}
        }
        if self.stop.is_cancelled() {
            return Ok(false);
        }
        if self.sweep.dry_run || self.renewed.elapsed() < LEASE / 3 {
            return Ok(true);
        }
        self.renew_lease().await
    }

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
                match sweeper.records.find(id).await {
                    Ok(Some(upload)) => self.settle(upload).await?,
                    Ok(None) => {}
                    Err(error) => self.log(Err(error), "")?,
                }
            }
            after = page.next;
            if after.is_none() || !self.next_permit().await? {
                return Ok(());
            }
        }
    }

    /// Ends an upload if it is due.
    async fn settle(&mut self, upload: Upload) -> Result<()> {
        let storage_id = upload.storage_id.clone();
        if self.unavailable.contains(&storage_id) {
            return Ok(());
        }
        let now = self.sweeper.records.now().minus(CLOCK_MARGIN);
        let lease_ended = upload.lease.is_none_or(|lease| lease.until <= now);
        let settled = match upload.phase {
            Phase::Open if upload.has_expired(now) => self.expire(upload).await,
            Phase::Committing if lease_ended => self.finish_commit(upload).await,
            Phase::Aborted if !upload.swept && upload.expires_at <= now => self.clear(upload).await,
            _ => Ok(()),
        };
        self.log(settled, &storage_id)
    }

    async fn expire(&mut self, mut upload: Upload) -> Result<()> {
        let sweeper = self.sweeper;
        let storage = sweeper.storages.get(&upload.storage_id)?;
        let seen = upload.updated_at;
        if self.sweep.dry_run {
            let count = match storage.store.head(&upload.object_key).await? {
                Some(_) => &mut self.report.completed,
                None => &mut self.report.expired,
            };
            *count += 1;
            tracing::info!(upload_id = %upload.id, "an expired upload would be aborted");
            return Ok(());
        }
        match sweeper
            .inspector
            .find_committed(&storage, &mut upload)
            .await
        {
            Ok(true) => {
                self.report.completed += 1;
                return Ok(());
            }
            Ok(false) => {}
            // The object was not the upload's. Both are removed.
            Err(_) if upload.phase == Phase::Aborted => {
                self.report.expired += 1;
                return Ok(());
            }
            Err(error) if matches!(error.reason(), Reason::WrongPhase | Reason::WriterActive) => {
                return Ok(());
            }
            Err(_) if upload.phase == Phase::Committing => return Ok(()),
            Err(error) => return Err(error),
        }
        let ended = sweeper
            .records
            .end_untouched(&mut upload, Event::Abandoned, seen);
        if !ended.await? {
            // A caller changed the upload at the same time.
            return Ok(());
        }
        self.report.expired += 1;
        tracing::info!(upload_id = %upload.id, "an expired upload was aborted");
        sweeper.sessions.discard(&upload).await
    }

    /// Finishes a commit whose committer died.
    async fn finish_commit(&mut self, mut upload: Upload) -> Result<()> {
        if !self.sweep.dry_run {
            let committed_size = upload.parts.committed_size();
            let file_size = upload.file.file_size.unwrap_or(committed_size);
            if let Err(error) = self.sweeper.commits.commit(&mut upload, file_size).await {
                match error.reason() {
                    // Another committer was faster, or the upload is OPEN again.
                    Reason::WrongPhase | Reason::TakenOver | Reason::Incomplete => return Ok(()),
                    _ if upload.is_live() => return Err(error),
                    _ => tracing::info!(upload_id = %upload.id, %error, "a commit was rejected"),
                }
            }
        }
        self.report.finished_commits += 1;
        tracing::info!(upload_id = %upload.id, dry_run = self.sweep.dry_run, "finished the commit of a dead committer");
        Ok(())
    }

    /// Removes again what clients may have sent after the upload was aborted, while their signatures were still valid.
    async fn clear(&mut self, mut upload: Upload) -> Result<()> {
        let sweeper = self.sweeper;
        if !self.sweep.dry_run {
            sweeper.sessions.discard(&upload).await?;
            upload.swept = true;
            // No other caller changes it, except a sweeper that has done the same.
            sweeper.records.update(&upload).await?;
        }
        self.report.cleared += 1;
        tracing::debug!(upload_id = %upload.id, dry_run = self.sweep.dry_run, "cleared an aborted upload for the last time");
        Ok(())
    }

    async fn sessions(&mut self, storage: &Storage) -> Result<()> {
        if self.unavailable.contains(&storage.id) {
            return Ok(());
        }
        let sweeper = self.sweeper;
        let max_age = sweeper.upload_max_age + SESSION_MARGIN;
        let min_age = self.sweep.session_age.unwrap_or(max_age);
        let prefix = policy::object_key_prefix(&storage.prefix);
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
                let Some(id) = policy::upload_of_key(&storage.prefix, &session.key) else {
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
                self.log(ended, &storage.id)?;
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
            storage.store.abort(&Session { key, id }).await?;
        }
        self.report.aborted_sessions += 1;
        tracing::info!(upload_id = %id, dry_run = self.sweep.dry_run, "ended an orphaned session");
        Ok(())
    }

    /// Logs and counts a failure, so that the pass continues with the next item. An unavailable state store ends the
    /// pass.
    fn log(&mut self, outcome: Result<()>, storage_id: &str) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        if error.reason() == Reason::StateUnavailable {
            return Err(error);
        }
        self.report.failures += 1;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(storage_id, %error, cause, "an operation of the sweeper failed: {error}");
        if is_unavailable(&error) {
            self.unavailable.insert(storage_id.to_owned());
        }
        Ok(())
    }
}

/// Whether further requests to the store would fail, too.
fn is_unavailable(error: &Error) -> bool {
    matches!(
        error.reason(),
        Reason::StoreUnavailable | Reason::StorageNotFound
    )
}
