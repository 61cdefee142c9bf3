//! Whether a record can be removed from the state store, because the store has one with the file.

use std::sync::Arc;

use super::{ObjectRecords, Side, entry, facts};
use crate::{
    error::Result,
    gateway::{caller::Caller, storage::Storage},
    upload::{
        Object, StoredObject, Upload,
        object_record::{ObjectEntry, SideRecord},
    },
};

// === impl ObjectRecords ===

impl ObjectRecords {
    /// Whether the store has all that is needed to rebuild the record of a COMPLETE upload on demand, as it is now, for callers
    /// of its tenant. Without that proof the answer is `false`.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::gateway) async fn has(&self, upload: &Upload) -> Result<bool> {
        let (Some(object), Some(storage)) = (&upload.object, self.searched(upload)) else {
            return Ok(false);
        };
        if object.key != upload.object_key || object.bucket != storage.store.bucket() {
            return Ok(false);
        }
        match self.side(&storage, &upload.id).await? {
            Side::Record(side) => self.has_side(&storage, upload, (*side, object)).await,
            Side::Absent => self.has_entry(&storage, upload, object).await,
            Side::Unreadable => Ok(false),
        }
    }

    /// The storage of the upload, if it is one in which callers of its tenant search.
    fn searched(&self, upload: &Upload) -> Option<Arc<Storage>> {
        let caller = Caller {
            owner: upload.owner.clone(),
            ..Caller::default()
        };
        let storages = self.storages.of_caller(&caller);
        let is_its = |storage: &Arc<Storage>| {
            storage.id == upload.storage_id && !storage.record_keys.is_empty()
        };
        storages.into_iter().find(is_its)
    }

    async fn has_side(
        &self,
        storage: &Storage,
        upload: &Upload,
        (side, object): (SideRecord, &Object),
    ) -> Result<bool> {
        let is_its = self.is_of(storage, side.storage_id());
        if !is_its || !side.has_all_of(upload, object) {
            return Ok(false);
        }
        let found = storage.store.head(&object.key).await?;
        let is_of = |found: &StoredObject| side.is_of(&facts(storage, &object.key, found));
        Ok(found.as_ref().is_some_and(is_of))
    }

    async fn has_entry(&self, storage: &Storage, upload: &Upload, object: &Object) -> Result<bool> {
        let (tenant, id, key) = (&upload.owner.tenant, &upload.id, &object.key);
        let prefix = storage.key.prefix_of(&storage.prefix, tenant, id);
        let is_listed = prefix.is_some_and(|prefix| key.starts_with(&prefix));
        if !is_listed || storage.key.upload_of(&storage.prefix, key).as_ref() != Some(id) {
            return Ok(false);
        }
        let Some(found) = storage.store.head(key).await? else {
            return Ok(false);
        };
        let is_same = found.etag == object.etag && found.size == object.size;
        let is_its =
            |entry: ObjectEntry| self.is_of(storage, entry.storage_id()) && entry.is_whole(upload);
        Ok(is_same && entry(storage, key, &found).is_some_and(is_its))
    }
}
