//! Adds the uploads of an earlier release, which kept no indexes of listings, to them: some at each sweep, in the order of
//! `due`, which has all of them.
//!
//! Replicas of that release may still run, and what they write has no entries. So passes over all uploads follow each other, at
//! most one an hour, until one finds nothing to add that began an hour after the first. The key `backfill` keeps how far they
//! are.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    error::{Error, Reason, Result},
    upload::{Timestamp, UploadId},
};

use super::{
    Redis,
    due::{CONCURRENCY, Entry},
    record::NEVER,
    scripts::SCRIPTS,
};

/// How many uploads are read in one step, and how many steps one sweep takes.
const STEP: usize = 1_000;
const STEPS: usize = 5;

/// The shortest time between the begins of two passes.
const BETWEEN: Duration = Duration::from_secs(60 * 60);

/// The entries of uploads that changed this shortly ago may still be written by the call that changed them, so they show nothing.
const SETTLES: Duration = Duration::from_secs(60);

/// How far the passes are.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    /// When the first pass began.
    first: Timestamp,
    /// When this one did.
    begun: Timestamp,
    /// Whether it has found an upload whose entries were missing or out of date.
    has_found: bool,
    /// The last entry of `due` that it has read: its score, and the id. `None`: it has ended.
    after: Option<(u64, String)>,
}

// === impl Progress ===

impl Progress {
    /// The first pass.
    fn begin(now: Timestamp) -> Self {
        Self {
            first: now,
            begun: now,
            has_found: false,
            after: Some((0, String::new())),
        }
    }

    /// Begins the next pass, if one is needed and it is time.
    fn next(self, now: Timestamp) -> Self {
        let is_last = !self.has_found && self.begun >= self.first.plus(BETWEEN);
        match self.after.is_none() && !is_last && now >= self.begun.plus(BETWEEN) {
            true => Self {
                first: self.first,
                ..Self::begin(now)
            },
            false => self,
        }
    }
}

// === impl Redis ===

impl Redis {
    /// Adds some more uploads, if a pass is due. A server with full memory gets no more entries.
    pub(super) async fn index_more(&self, now: Timestamp) -> Result<()> {
        match self.run_steps(now).await {
            Err(error) if error.reason() == Reason::StateFull => Ok(()),
            ended => ended,
        }
    }

    async fn run_steps(&self, now: Timestamp) -> Result<()> {
        let get = redis::cmd("GET").arg(self.key("backfill")).to_owned();
        let known: Option<String> = self.link.command(&get).await?;
        // A later release may write another text. Then all begins again, which does no harm.
        let known = known.and_then(|text| serde_json::from_str::<Progress>(&text).ok());
        let mut progress = known.map_or_else(|| Progress::begin(now), |known| known.next(now));
        for _ in 0..STEPS {
            let Some((score, id)) = progress.after.clone() else {
                break;
            };
            // Fails in full memory, before entries are added.
            self.store_progress(&progress).await?;
            let (after, has_found) = self.index_after(score, &id, now).await?;
            progress.after = after;
            progress.has_found |= has_found;
            self.store_progress(&progress).await?;
        }
        Ok(())
    }

    async fn store_progress(&self, progress: &Progress) -> Result<()> {
        let text = serde_json::to_string(progress)
            .map_err(|cause| Error::internal("write the progress of indexes", cause))?;
        let set = redis::cmd("SET")
            .arg((self.key("backfill"), text))
            .to_owned();
        self.link.command(&set).await
    }

    /// Adds the uploads after an entry of `due`. Returns the last entry, if there may be more, and whether one was found that
    /// lacked entries.
    async fn index_after(
        &self,
        score: u64,
        id: &str,
        now: Timestamp,
    ) -> Result<(Option<(u64, String)>, bool)> {
        let mut invocation = SCRIPTS.due.key(self.due_key());
        invocation.arg(score).arg(id).arg(NEVER).arg(STEP);
        let members: Vec<(String, u64)> = self.link.script(&invocation).await?;
        let entries = members
            .into_iter()
            .map(|(member, score)| Entry::new(member, score, 0));
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let last = entries.last().filter(|_| entries.len() == STEP);
        let last = last.map(|last| (last.score, last.due.id.to_string()));
        let ids = entries.into_iter().map(|entry| entry.due.id);
        let added = ids.map(|id| self.index_again(id, now));
        let added = stream::iter(added).buffer_unordered(CONCURRENCY);
        let has_found = added.try_fold(false, |found, more| async move { Ok(found | more) });
        Ok((last, has_found.await?))
    }

    /// Returns whether the upload lacked entries.
    async fn index_again(&self, id: UploadId, now: Timestamp) -> Result<bool> {
        match self.read_summary(&id).await {
            Ok(Some(upload)) => {
                let has_changed = self.set_entries(&upload).await?;
                Ok(has_changed && upload.updated_at <= now.minus(SETTLES))
            }
            Ok(None) => Ok(false),
            Err(error) if error.is_retryable() => Err(error),
            // Its callers get the same error.
            Err(_) => Ok(false),
        }
    }
}
