//! Adds the uploads of an earlier release, which kept no indexes of listings, to them: some at each sweep, in the order of
//! `due`, which has all of them. The key `indexed` keeps how far that is. Later uploads are added when they are written.

use futures::{StreamExt, TryStreamExt, stream};
use upload_gateway_core::{
    error::{Reason, Result},
    upload::UploadId,
};

use super::{
    Redis,
    due::{CONCURRENCY, Entry},
    record::NEVER,
    scripts::SCRIPTS,
};

/// How many uploads are added in one step, and how many steps one sweep takes.
const STEP: usize = 1_000;
const STEPS: usize = 5;

/// What `indexed` holds at the end.
const ALL: &str = "all";

// === impl Redis ===

impl Redis {
    /// Adds some more uploads, until all have been added. A server with full memory gets no more entries.
    pub(super) async fn index_more(&self) -> Result<()> {
        match self.run_steps().await {
            Err(error) if error.reason() == Reason::StateFull => Ok(()),
            ended => ended,
        }
    }

    async fn run_steps(&self) -> Result<()> {
        let get = redis::cmd("GET").arg(self.key("indexed")).to_owned();
        let known: Option<String> = self.link.command(&get).await?;
        let mut known = known.unwrap_or_default();
        for _ in 0..STEPS {
            if known == ALL {
                break;
            }
            // Fails in full memory, before entries are added.
            self.store_indexed(&known).await?;
            let (score, id) = known.split_once(' ').unwrap_or(("0", ""));
            known = self.index_after(score, id).await?;
            self.store_indexed(&known).await?;
        }
        Ok(())
    }

    async fn store_indexed(&self, known: &str) -> Result<()> {
        let set = redis::cmd("SET")
            .arg((self.key("indexed"), known))
            .to_owned();
        self.link.command(&set).await
    }

    /// Adds the uploads after an entry of `due`. Returns the last one, as `indexed` holds it.
    async fn index_after(&self, score: &str, id: &str) -> Result<String> {
        let mut invocation = SCRIPTS.due.key(self.due_key());
        invocation.arg(score).arg(id).arg(NEVER).arg(STEP);
        let members: Vec<(String, u64)> = self.link.script(&invocation).await?;
        let entries = members
            .into_iter()
            .map(|(member, score)| Entry::new(member, score, 0));
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let last = entries.last().filter(|_| entries.len() == STEP);
        let next = last.map_or_else(
            || ALL.to_owned(),
            |last| format!("{} {}", last.score, last.due.id),
        );
        let ids = entries.into_iter().map(|entry| entry.due.id);
        let added = ids.map(|id| self.index_again(id));
        let added = stream::iter(added).buffer_unordered(CONCURRENCY);
        added.try_for_each(|()| async { Ok(()) }).await?;
        Ok(next)
    }

    async fn index_again(&self, id: UploadId) -> Result<()> {
        match self.read_summary(&id).await {
            Ok(Some(upload)) => self.set_entries(&upload).await,
            Ok(None) => Ok(()),
            Err(error) if error.is_retryable() => Err(error),
            // Its callers get the same error.
            Err(_) => Ok(()),
        }
    }
}
