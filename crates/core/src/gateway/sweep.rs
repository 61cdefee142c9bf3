//! Sweeping up: uploads that expired, commits that were left behind, what clients sent after the end, and sessions that no
//! record knows.
//!
//! A record is moved first, compared and set, and what it had in the store goes after: a pass that dies in between leaves
//! a session that a later one finds, and two passes at once do each other no harm. Sessions are told old by the store's
//! clock alone. Azure has none: it forgets uncommitted blocks by itself.

use std::{collections::HashSet, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Gateway, Storage};
use crate::{
    blobs::{OpenSession, Session},
    error::{Error, Reason, Result},
    upload::{Event, Phase, Upload, UploadId, policy},
};

/// How far apart the clocks of two replicas may be: nothing is given up before all of them agree that it is time.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// How much older than the oldest upload a session has to be before it is ended without a record.
const SESSION_MARGIN: Duration = Duration::from_secs(60 * 60);

/// How long a sweeper that died keeps the others from sweeping.
const LEASE: Duration = Duration::from_secs(60);

/// How many uploads are read from the index at once.
const PAGE: usize = 100;

/// How a pass is made.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Only look, and tell what would be done.
    pub dry_run: bool,
    /// How many uploads and sessions are worked on in a second, at most.
    pub operations_per_second: u32,
    /// The age by the store's clock from which sessions without a record are ended. `None`: the maximum age of uploads
    /// and a margin, so that no resume token can still be of use for one.
    pub session_age: Option<Duration>,
    /// Make no pass when another replica has begun one within this time.
    pub interval: Option<Duration>,
}

/// What a pass did, or in a dry run would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// Uploads that were due and sessions that were listed.
    pub examined: u64,
    /// Expired uploads that were given up.
    pub expired: u64,
    /// Expired uploads whose object a client had made: they are COMPLETE.
    pub completed: u64,
    /// Commits left behind that were brought to their end, whichever it was.
    pub finished_commits: u64,
    /// ABORTED uploads whose place in the store was cleared for good.
    pub cleared: u64,
    /// Old sessions without a record that were ended.
    pub aborted_sessions: u64,
    /// What failed and is left to a later pass.
    pub failures: u64,
}

/// One pass, on its way.
struct Pass<'a> {
    gateway: &'a Gateway,
    sweep: &'a Sweep,
    stop: &'a CancellationToken,
    holder: String,
    prolonged: Instant,
    pace: Interval,
    /// The storages that did not answer: what else lies there waits for a later pass.
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

// === impl Gateway ===

impl Gateway {
    /// Makes one pass over everything, or until `stop`. `None` when another replica sweeps, or has just done so. A dry run
    /// asks nobody.
    ///
    /// # Errors
    /// The state store is away. Whatever else fails is counted and left to a later pass.
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
    fn new(gateway: &'a Gateway, sweep: &'a Sweep, stop: &'a CancellationToken) -> Self {
        let mut pace = interval(Duration::from_secs(1) / sweep.operations_per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            gateway,
            sweep,
            stop,
            holder: format!("{:016x}", rand::random::<u64>()),
            prolonged: Instant::now(),
            pace,
            unavailable: HashSet::new(),
            report: SweepReport::default(),
        }
    }

    /// Whether no other replica has begun a pass in this interval. A turn is never given back: it ends.
    async fn acquire_turn(&self) -> Result<bool> {
        let Some(interval) = self.sweep.interval else {
            return Ok(true);
        };
        let Self {
            gateway, holder, ..
        } = self;
        let taken = || gateway.state.lease("sweep-turn", holder, interval);
        gateway.retry.run(taken).await
    }

    async fn prolong(&mut self) -> Result<bool> {
        self.prolonged = Instant::now();
        let Self {
            gateway, holder, ..
        } = self;
        let taken = || gateway.state.lease("sweep", holder, LEASE);
        gateway.retry.run(taken).await
    }

    async fn release(&self) {
        if let Err(error) = self.gateway.state.release("sweep", &self.holder).await {
            tracing::debug!(%error, "the sweeper's lease is left to end");
        }
    }

    async fn run(&mut self) -> Result<()> {
        self.due_uploads().await?;
        for storage in self.gateway.storages.iter() {
            let swept = self.sessions(storage).await;
            self.log(swept, &storage.id)?;
        }
        Ok(())
    }

    /// Waits for the next operation; false when there must be none.
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
        let gateway = self.gateway;
        let before = gateway.clock.now().minus(CLOCK_MARGIN);
        let mut after = None;
        loop {
            let due = || gateway.state.due(before, after.as_ref(), PAGE);
            let page = gateway.retry.run(due).await?;
            for id in &page.uploads {
                if !self.next_permit().await? {
                    return Ok(());
                }
                self.report.examined += 1;
                match gateway.retry.run(|| gateway.state.get(id)).await {
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

    /// Brings an upload to its end if it is time.
    async fn settle(&mut self, upload: Upload) -> Result<()> {
        let storage_id = upload.storage_id.clone();
        if self.unavailable.contains(&storage_id) {
            return Ok(());
        }
        let now = self.gateway.clock.now().minus(CLOCK_MARGIN);
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
        let gateway = self.gateway;
        let storage = gateway.storages.get(&upload.storage_id)?;
        let seen = upload.updated_at;
        if self.sweep.dry_run {
            let found = gateway.retry.run(|| storage.store.head(&upload.object_key));
            let count = match found.await? {
                Some(_) => &mut self.report.completed,
                None => &mut self.report.expired,
            };
            *count += 1;
            tracing::info!(upload_id = %upload.id, "an expired upload would be given up");
            return Ok(());
        }
        match gateway.find_committed(&storage, &mut upload).await {
            Ok(true) => {
                self.report.completed += 1;
                return Ok(());
            }
            Ok(false) => {}
            // What lay there was not the upload's: both are gone.
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
        let ended = gateway.end_untouched(&mut upload, Event::Abandoned, seen);
        if !ended.await? {
            // Somebody came back to it in this very moment.
            return Ok(());
        }
        self.report.expired += 1;
        tracing::info!(upload_id = %upload.id, "an expired upload was given up");
        gateway.discard(&upload).await
    }

    /// Does what a committer that is gone has begun.
    async fn finish_commit(&mut self, mut upload: Upload) -> Result<()> {
        if !self.sweep.dry_run {
            let committed_size = upload.parts.committed_size();
            let file_size = upload.file.file_size.unwrap_or(committed_size);
            if let Err(error) = self.gateway.commit(&mut upload, file_size).await {
                match error.reason() {
                    // Somebody else was quicker, or it is OPEN again.
                    Reason::WrongPhase | Reason::TakenOver | Reason::Incomplete => return Ok(()),
                    _ if upload.is_live() => return Err(error),
                    _ => tracing::info!(upload_id = %upload.id, %error, "a commit was refused"),
                }
            }
        }
        self.report.finished_commits += 1;
        tracing::info!(upload_id = %upload.id, dry_run = self.sweep.dry_run, "a commit left behind is finished");
        Ok(())
    }

    /// Discards once more what clients may have sent after the upload was given up: their signatures went on for a while.
    async fn clear(&mut self, mut upload: Upload) -> Result<()> {
        let gateway = self.gateway;
        if !self.sweep.dry_run {
            gateway.discard(&upload).await?;
            upload.swept = true;
            // Nobody else changes it, but for a sweeper that has done the same.
            let update = || gateway.state.update(&upload, upload.writer);
            gateway.retry.run(update).await?;
        }
        self.report.cleared += 1;
        tracing::debug!(upload_id = %upload.id, dry_run = self.sweep.dry_run, "an aborted upload is cleared for good");
        Ok(())
    }

    async fn sessions(&mut self, storage: &Storage) -> Result<()> {
        if self.unavailable.contains(&storage.id) {
            return Ok(());
        }
        let gateway = self.gateway;
        let max_age = gateway.settings.upload_max_age + SESSION_MARGIN;
        let least_age = self.sweep.session_age.unwrap_or(max_age);
        let prefix = policy::object_key_prefix(&storage.prefix);
        let mut after = None;
        loop {
            if !self.next_permit().await? {
                return Ok(());
            }
            let list = || storage.store.list_sessions(&prefix, after.as_deref());
            let Some(page) = gateway.retry.run(list).await? else {
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

    /// Ends an old session, unless a live upload has it. That one is long due: the index has lost it.
    async fn end_session(
        &mut self,
        storage: &Storage,
        id: &UploadId,
        session: &OpenSession,
    ) -> Result<()> {
        let gateway = self.gateway;
        let found = gateway.retry.run(|| gateway.state.get(id)).await?;
        let has_it =
            |upload: &Upload| upload.is_live() && upload.session.as_ref() == Some(&session.id);
        if let Some(upload) = found.filter(has_it) {
            return self.settle(upload).await;
        }
        if !self.sweep.dry_run {
            let OpenSession { key, id, .. } = session;
            let abort = || async { storage.store.abort(&Session { key, id }).await };
            gateway.retry.run(abort).await?;
        }
        self.report.aborted_sessions += 1;
        tracing::info!(upload_id = %id, dry_run = self.sweep.dry_run, "a session that no upload has is ended");
        Ok(())
    }

    /// Counts a failure, so that the pass goes on with other things; without the state store there is nothing else.
    fn log(&mut self, outcome: Result<()>, storage_id: &str) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        if error.reason() == Reason::StateUnavailable {
            return Err(error);
        }
        self.report.failures += 1;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(storage_id, %error, cause, "something could not be swept up: {error}");
        if is_unavailable(&error) {
            self.unavailable.insert(storage_id.to_owned());
        }
        Ok(())
    }
}

/// Whether the store will not answer the next question, either.
fn is_unavailable(error: &Error) -> bool {
    matches!(
        error.reason(),
        Reason::StoreUnavailable | Reason::StorageNotFound
    )
}
