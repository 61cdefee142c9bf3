//! The periodic clean-up: expired uploads, commits whose committer died, objects that clients put after the end of their
//! upload, and orphaned sessions.
//!
//! A record is changed first, by compare-and-set, and then what it has in the store is removed: a pass that dies in between
//! leaves a session that a later one finds, and two passes at the same time do no harm. The age of sessions is measured by
//! the store's clock alone. Azure drops uncommitted blocks by itself.

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

/// How far apart the clocks of two replicas may be: nothing expires before it has expired by all of them.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// How much older than the oldest upload a session must be before it is ended without a record.
const SESSION_MARGIN: Duration = Duration::from_secs(60 * 60);

/// How long a sweeper that died prevents the others from sweeping.
const LEASE: Duration = Duration::from_secs(60);

/// How many uploads are read from the index per page.
const PAGE: usize = 100;

/// How a pass is made.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Only count what would be done.
    pub dry_run: bool,
    /// The most uploads and sessions that are handled per second.
    pub operations_per_second: u32,
    /// The age by the store's clock from which sessions without a record are ended. `None`: the maximum age of uploads
    /// and a margin, so that no resume token can still need one.
    pub session_age: Option<Duration>,
    /// Make no pass if another replica has begun one within this time.
    pub interval: Option<Duration>,
}

/// What a pass did, or in a dry run would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// Uploads that were due and sessions that were listed.
    pub examined: u64,
    /// Expired uploads that were aborted.
    pub expired: u64,
    /// Expired uploads whose object a client had made: they are COMPLETE.
    pub completed: u64,
    /// Commits whose committer died and that were finished or refused.
    pub finished_commits: u64,
    /// ABORTED uploads whose key in the store was cleared finally.
    pub cleared: u64,
    /// Old sessions without a record that were ended.
    pub aborted_sessions: u64,
    /// Failures, which are left to a later pass.
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

/// One running pass.
struct Pass<'a> {
    sweeper: &'a Sweeper,
    sweep: &'a Sweep,
    stop: &'a CancellationToken,
    holder: String,
    prolonged: Instant,
    pace: Interval,
    /// The storages that did not answer: their other uploads and sessions are left to a later pass.
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
    /// Makes one pass over everything, or until `stop`. `None` if another replica sweeps, or has just done so. A dry run
    /// needs no lease.
    ///
    /// # Errors
    /// The state store is unavailable. Other failures are counted and left to a later pass.
    pub async fn sweep(
        &self,
        sweep: &Sweep,
        stop: &CancellationToken,
    ) -> Result<Option<SweepReport>> {
        let mut pass = Pass::new(self, sweep, stop);
        let may_sweep = sweep.dry_run || (pass.acquire_turn().await? && pass.prolong().await?);
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
            prolonged: Instant::now(),
            pace,
            unavailable: HashSet::new(),
            report: SweepReport::default(),
        }
    }

    /// Whether no other replica has begun a pass in this interval. The lease of a turn is never released: it expires.
    async fn acquire_turn(&self) -> Result<bool> {
        let Some(interval) = self.sweep.interval else {
            return Ok(true);
        };
        let schedule = &self.sweeper.schedule;
        schedule.lease("sweep-turn", &self.holder, interval).await
    }

    async fn prolong(&mut self) -> Result<bool> {
        self.prolonged = Instant::now();
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

    /// Waits for the permit of the next operation; false if the pass must end.
    async fn next_permit(&mut self) -> Result<bool> {
        tokio::select! {
            _ = self.pace.tick() => {}
            () = self.stop.cancelled() => {}
        }
        if self.stop.is_cancelled() {
            return Ok(false);
        }
        if self.sweep.dry_run || self.prolonged.elapsed() < LEASE / 3 {
            return Ok(true);
        }
        self.prolong().await
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
            // The object was not the upload's: both have ended.
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
            // A caller touched it at the same moment.
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
                    _ => tracing::info!(upload_id = %upload.id, %error, "a commit was refused"),
                }
            }
        }
        self.report.finished_commits += 1;
        tracing::info!(upload_id = %upload.id, dry_run = self.sweep.dry_run, "the commit of a dead committer is finished");
        Ok(())
    }

    /// Discards again what clients may have sent after the upload was aborted, while their signatures were still valid.
    async fn clear(&mut self, mut upload: Upload) -> Result<()> {
        let sweeper = self.sweeper;
        if !self.sweep.dry_run {
            sweeper.sessions.discard(&upload).await?;
            upload.swept = true;
            // No other caller changes it, except a sweeper that has done the same.
            sweeper.records.update(&upload).await?;
        }
        self.report.cleared += 1;
        tracing::debug!(upload_id = %upload.id, dry_run = self.sweep.dry_run, "an aborted upload is cleared finally");
        Ok(())
    }

    async fn sessions(&mut self, storage: &Storage) -> Result<()> {
        if self.unavailable.contains(&storage.id) {
            return Ok(());
        }
        let sweeper = self.sweeper;
        let max_age = sweeper.upload_max_age + SESSION_MARGIN;
        let least_age = self.sweep.session_age.unwrap_or(max_age);
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
                if session.initiated_at.plus(least_age) > page.now {
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

    /// Ends an old session, unless a live upload has it. Such an upload is long due, and the index has lost it.
    async fn end_session(
        &mut self,
        storage: &Storage,
        id: &UploadId,
        session: &OpenSession,
    ) -> Result<()> {
        let sweeper = self.sweeper;
        let found = sweeper.records.find(id).await?;
        let has_it =
            |upload: &Upload| upload.is_live() && upload.session.as_ref() == Some(&session.id);
        if let Some(upload) = found.filter(has_it) {
            return self.settle(upload).await;
        }
        if !self.sweep.dry_run {
            let OpenSession { key, id, .. } = session;
            storage.store.abort(&Session { key, id }).await?;
        }
        self.report.aborted_sessions += 1;
        tracing::info!(upload_id = %id, dry_run = self.sweep.dry_run, "an orphaned session is ended");
        Ok(())
    }

    /// Logs and counts a failure, so that the pass continues with the next item; without the state store it cannot.
    fn log(&mut self, outcome: Result<()>, storage_id: &str) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        if error.reason() == Reason::StateUnavailable {
            return Err(error);
        }
        self.report.failures += 1;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(storage_id, %error, cause, "the sweeper failed: {error}");
        if is_unavailable(&error) {
            self.unavailable.insert(storage_id.to_owned());
        }
        Ok(())
    }
}

/// Whether the store will not answer the next request, either.
fn is_unavailable(error: &Error) -> bool {
    matches!(
        error.reason(),
        Reason::StoreUnavailable | Reason::StorageNotFound
    )
}
