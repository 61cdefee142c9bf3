//! Restores all records of a storage from a listing of its objects.

use futures::{StreamExt, stream};
use serde::Serialize;

use super::{ObjectRecords, Side, entry, facts};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{records::Records, storage::Storage},
    upload::{Upload, UploadId, keys::directory, object_record::rebuild_unauthenticated},
};

/// How many objects are looked at at a time.
const AT_A_TIME: usize = 16;

/// What a restoration has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// The objects that the storage has below its prefix, without side objects.
    pub objects: u64,
    /// The records that are restored now, or would be.
    pub restored: u64,
    /// The objects whose records existed.
    pub known: u64,
    /// The objects without a record of their own: put there by others, sealed with a key that is not configured, or of a file
    /// that has expired.
    pub foreign: u64,
    /// The objects that could not be looked at. The log has their keys.
    pub failed: u64,
}

/// How a restoration works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restore {
    /// Changes nothing, and counts what would be restored.
    pub dry_run: bool,
    /// Also restores records of objects whose key and metadata name an upload, but which no key has sealed. Every writer
    /// of the bucket can make such objects. The records have no owner, and only administrators may download the files.
    pub unauthenticated: bool,
}

/// What an object has become.
enum Outcome {
    Restored,
    Known,
    Foreign,
    Failed,
    Side,
}

// === impl ObjectRecords ===

impl ObjectRecords {
    /// Restores the records of all objects in a storage. Existing records do not change.
    ///
    /// # Errors
    /// `FailedPrecondition` without keys, unless `how.unauthenticated`; those of the stores. What was restored before stays restored.
    pub(in crate::gateway) async fn restore(
        &self,
        records: &Records,
        storage: &Storage,
        how: Restore,
    ) -> Result<RestoreReport> {
        if storage.record_keys.is_empty() && !how.unauthenticated {
            return Err(no_keys());
        }
        let mut report = RestoreReport::default();
        let prefix = directory(&storage.prefix);
        let mut after = None;
        loop {
            let page = storage.store.list(&prefix, after.as_deref()).await?;
            let restored = stream::iter(&page.keys)
                .map(|key| Box::pin(self.try_one(records, storage, key, how)));
            let mut restored = restored.buffer_unordered(AT_A_TIME);
            while let Some(outcome) = restored.next().await {
                report.add(&outcome?);
            }
            after = page.next;
            if after.is_none() {
                return Ok(report);
            }
        }
    }

    /// Restores one record. An object that the store refuses to show does not stop the restoration of the others.
    async fn try_one(
        &self,
        records: &Records,
        storage: &Storage,
        key: &str,
        how: Restore,
    ) -> Result<Outcome> {
        match self.restore_one(records, storage, key, how).await {
            Err(error) if error.operator_code().is_some() || !error.is_retryable() => {
                let key = crate::escape::escaped(key);
                tracing::error!(storage_id = storage.id, %key, %error, "the record of an object cannot be restored");
                Ok(Outcome::Failed)
            }
            restored => restored,
        }
    }

    async fn restore_one(
        &self,
        records: &Records,
        storage: &Storage,
        key: &str,
        how: Restore,
    ) -> Result<Outcome> {
        if storage.is_side_key(key) {
            return Ok(Outcome::Side);
        }
        let Some(found) = self.record_at(storage, key, how).await? else {
            return Ok(Outcome::Foreign);
        };
        if records.find_any(&found.id).await?.is_some() {
            return Ok(Outcome::Known);
        }
        if !how.dry_run {
            records.restore(found).await?;
        }
        Ok(Outcome::Restored)
    }

    /// The record of the object with this key, as far as it is authentic.
    async fn record_at(
        &self,
        storage: &Storage,
        key: &str,
        how: Restore,
    ) -> Result<Option<Upload>> {
        let Some(found) = storage.store.head(key).await? else {
            return Ok(None);
        };
        let named: Option<UploadId> = found.upload_id().and_then(|id| id.parse().ok());
        let id = named.or_else(|| storage.key.upload_of(&storage.prefix, key));
        if let Some(id) = &id {
            match self.side(storage, id).await? {
                Side::Record(side) if side.object_key() == key => {
                    return self.of_side(storage, *side).await;
                }
                Side::Unreadable if !how.unauthenticated => return Ok(None),
                Side::Record(_) | Side::Unreadable | Side::Absent => {}
            }
        }
        if let Some(upload) = self.of_entry(storage, key, &found) {
            return Ok(Some(upload));
        }
        if entry(storage, key, &found).is_some() {
            return Ok(None);
        }
        let by_key = storage.key.upload_of(&storage.prefix, key);
        let own =
            id.filter(|id| how.unauthenticated && found.is_of(id) && by_key.as_ref() == Some(id));
        Ok(own.map(|id| {
            let name = key.rsplit('/').next().unwrap_or(key);
            rebuild_unauthenticated(id, name, &facts(storage, key, &found))
        }))
    }
}

// === impl RestoreReport ===

impl RestoreReport {
    fn add(&mut self, outcome: &Outcome) {
        self.objects += u64::from(!matches!(outcome, Outcome::Side));
        match outcome {
            Outcome::Restored => self.restored += 1,
            Outcome::Known => self.known += 1,
            Outcome::Foreign => self.foreign += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Side => {}
        }
    }
}

/// The error for a restoration that can restore nothing.
fn no_keys() -> Error {
    Error::new(
        Kind::FailedPrecondition,
        Reason::NotOffered,
        "records.key has no keys, so that no record is authentic",
    )
}
