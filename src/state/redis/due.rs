//! The uploads that are due, and the leases.
//!
//! `due` is a sorted set of uploads by the time at which the sweeper must check them. It is a hint, written after the
//! record and in another slot: an entry is checked against its record when it is read. Parts and claims, which postpone
//! the end of an upload, do not change its entry; reading the entry corrects it.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use upload_gateway_core::{
    error::{Error, Result},
    state::{Due, DuePage},
    upload::{Timestamp, Upload, UploadId},
};

use super::{Redis, record::removal_time, scripts::SCRIPTS};

/// How many records are read concurrently.
const CONCURRENCY: usize = 16;

/// The largest time that a score, which is a double, holds exactly.
const LATEST: u64 = 1 << 53;

impl Redis {
    fn due_key(&self) -> String {
        self.key("due")
    }

    /// Sets when the upload is due, or removes an upload that is never due again.
    pub(super) async fn schedule(&self, upload: &Upload) -> Result<()> {
        let Some(due_at) = upload.due_at() else {
            let forget = redis::cmd("ZREM")
                .arg(self.due_key())
                .arg(upload.id.as_str())
                .to_owned();
            return self.link.command(&forget).await;
        };
        let mut invocation = SCRIPTS.index.key(self.due_key());
        invocation
            .arg(upload.id.as_str())
            .arg(score(due_at))
            .arg(removal_time(upload.expires_at));
        self.link.script(&invocation).await
    }

    /// See [`ScheduleStore::due`](upload_gateway_core::state::ScheduleStore::due).
    pub(super) async fn due_page(
        &self,
        before: Timestamp,
        after: Option<&Due>,
        limit: usize,
    ) -> Result<DuePage> {
        let limit = limit.max(1);
        let mut invocation = SCRIPTS.due.key(self.due_key());
        invocation
            .arg(after.map_or(0, |due| score(due.at)))
            .arg(after.map_or("", |due| due.id.as_str()))
            .arg(score(before))
            .arg(limit);
        let entries: Vec<(String, u64)> = self.link.script(&invocation).await?;
        let entries = entries
            .into_iter()
            .map(|(id, at)| {
                let id = id.parse().map_err(unreadable)?;
                let at = Timestamp(at);
                Ok(Due { at, id })
            })
            .collect::<Result<Vec<Due>>>()?;
        let next = entries.last().filter(|_| entries.len() == limit).cloned();
        let checked = entries.into_iter().map(|due| self.check_due(due, before));
        let uploads = stream::iter(checked)
            .buffered(CONCURRENCY)
            .try_filter_map(|due| async move { Ok(due) })
            .try_collect();
        let uploads = uploads.await?;
        Ok(DuePage { uploads, next })
    }

    /// The upload of an entry, if it is due; otherwise corrects the entry.
    async fn check_due(&self, due: Due, before: Timestamp) -> Result<Option<UploadId>> {
        let upload = match self.read_summary(&due.id).await {
            // The caller gets the same error when it reads the record, and the other uploads do not wait for it.
            Err(error) if !error.is_retryable() => return Ok(Some(due.id)),
            upload => upload?,
        };
        let due_at = upload.as_ref().and_then(Upload::due_at);
        if due_at.is_some_and(|due_at| due_at <= before) {
            return Ok(Some(due.id));
        }
        let removal = upload.map_or(0, |upload| removal_time(upload.expires_at));
        let mut invocation = SCRIPTS.repair_due.key(self.due_key());
        invocation
            .arg(due.id.as_str())
            .arg(score(due.at))
            .arg(due_at.map_or_else(String::new, |due_at| score(due_at).to_string()))
            .arg(removal);
        self.link.script::<()>(&invocation).await?;
        Ok(None)
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
        invocation.arg(holder).arg(lasts.min(LATEST));
        self.link.script(&invocation).await
    }
}

fn score(time: Timestamp) -> u64 {
    time.0.min(LATEST)
}

fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal(
        "redis holds an invalid upload id among the due uploads",
        cause,
    )
}
