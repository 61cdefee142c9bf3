//! The uploads that are due, and the leases.

use std::ops::Bound;

use ::redb::ReadableTable;
use upload_gateway_core::{
    error::{Error, Result},
    state::{Due, DuePage},
    upload::{Timestamp, UploadId},
};

use super::{failure::internal, record::Record, tables::Tables};

// === impl Tables ===

impl Tables<'_> {
    /// Sets when the upload is due, or removes an upload that is never due again. The caller stores the record
    /// afterwards.
    pub(super) fn schedule(&mut self, record: &mut Record) -> Result<()> {
        let due_at = record.due_at();
        if due_at == record.scheduled_at {
            return Ok(());
        }
        self.remove_due(record)?;
        if let Some(at) = due_at {
            let key = (at.0, record.written.id.as_str());
            self.due.insert(key, ()).map_err(internal)?;
        }
        record.scheduled_at = due_at;
        Ok(())
    }

    /// Removes the entry of a record.
    pub(super) fn remove_due(&mut self, record: &Record) -> Result<()> {
        if let Some(at) = record.scheduled_at {
            let key = (at.0, record.written.id.as_str());
            self.due.remove(key).map_err(internal)?;
        }
        Ok(())
    }

    /// See [`ScheduleStore::due`](upload_gateway_core::state::ScheduleStore::due).
    pub(super) fn due(
        &mut self,
        before: Timestamp,
        after: Option<&Due>,
        limit: usize,
    ) -> Result<DuePage> {
        let start = after.map_or(Bound::Unbounded, |due| {
            Bound::Excluded((due.at.0, due.id.as_str()))
        });
        let end = Bound::Excluded((before.0.saturating_add(1), ""));
        let mut entries = Vec::new();
        let found = self.due.range::<(u64, &str)>((start, end));
        for entry in found.map_err(internal)?.take(limit) {
            let entry = entry.map_err(internal)?;
            let (at, id) = entry.0.value();
            let id: UploadId = id.parse().map_err(unreadable)?;
            entries.push(Due {
                at: Timestamp(at),
                id,
            });
        }
        let next = entries.last().filter(|_| entries.len() == limit).cloned();
        let mut uploads = Vec::new();
        for due in entries {
            let mut record = match self.record(&due.id) {
                Ok(Some(record)) => record,
                Ok(None) => {
                    let key = (due.at.0, due.id.as_str());
                    self.due.remove(key).map_err(internal)?;
                    continue;
                }
                // The caller gets the same error when it reads the record, and the other uploads do not wait for it.
                Err(error) if !error.is_retryable() => {
                    uploads.push(due.id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if record.due_at().is_some_and(|due_at| due_at <= before) {
                uploads.push(due.id);
                continue;
            }
            self.schedule(&mut record)?;
            self.store(&record)?;
        }
        Ok(DuePage { uploads, next })
    }

    /// Acquires, renews or (with `until` not after `now`) releases a lease; returns whether `holder` may. It may not
    /// while another holder has the lease.
    pub(super) fn lease(
        &mut self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool> {
        let fact = format!("lease:{name}");
        let held = self.facts.get(fact.as_str()).map_err(internal)?;
        let held = held.map(|held| serde_json::from_slice::<(String, Timestamp)>(held.value()));
        if let Some((known, end)) = held.transpose().map_err(unreadable)?
            && known != holder
            && end > now
        {
            return Ok(false);
        }
        let lease = serde_json::to_vec(&(holder, until)).map_err(unreadable)?;
        let inserted = self.facts.insert(fact.as_str(), lease.as_slice());
        inserted.map(drop).map_err(internal)?;
        Ok(true)
    }
}

fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal(
        "the state file holds an unreadable lease or upload id",
        cause,
    )
}
