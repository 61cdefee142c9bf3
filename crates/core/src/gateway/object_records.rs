//! What the stores keep of the records of COMPLETE uploads, so that files survive the loss of the state store.
//!
//! An object has a sealed entry in its metadata, from which its record can be rebuilt. What the entry does not have, because it
//! is too long or has changed since, is in a side object: `<prefix>/.records/<upload_id>`, which is sealed, too, and takes
//! precedence. A text that none of the keys has sealed for that bucket and key counts for nothing.

mod proof;
pub(super) mod restore;
mod searches;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;

use self::searches::{Absent, Rate};
use super::{
    caller::Caller,
    settings::Settings,
    storage::{Storage, Storages},
};
use crate::{
    blobs::{NewObject, sign::OPAQUE},
    clock::Clock,
    error::{Error, Kind, Reason, Result},
    upload::{
        Digests, Encryption, Event, Integrity, Md5, Object, StoredObject, Timestamp, Upload,
        UploadId,
        object_record::{Found, ObjectEntry, SideRecord},
    },
};

/// The largest side object that is read, in bytes. The texts of a record are bounded: the largest one is half as large.
const MAX_SIDE_LENGTH: usize = 256 * 1024;

/// Writes, reads and deletes what the stores keep of records.
#[derive(Debug)]
pub(super) struct ObjectRecords {
    storages: Storages,
    clock: Arc<dyn Clock>,
    keep_complete: Option<Duration>,
    rate: Rate,
    absent: Absent,
}

/// What the store has as the side object of an upload.
#[derive(Debug)]
enum Side {
    /// This record.
    Record(Box<SideRecord>),
    /// A text that none of the keys has sealed for it.
    Unreadable,
    /// Nothing.
    Absent,
}

/// An object that was verified to be that of an upload.
#[derive(Debug)]
pub(super) struct Verified {
    /// The object.
    pub(super) found: StoredObject,
    /// Its digests, as far as they are proven.
    pub(super) digests: Digests,
}

// === impl ObjectRecords ===

impl ObjectRecords {
    pub(super) fn new(storages: Storages, settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            storages,
            clock,
            keep_complete: settings.keep_complete,
            rate: Rate::new(settings.rebuilds_per_second),
            absent: Absent::default(),
        }
    }

    /// Writes the side object of an upload that becomes COMPLETE with this object, if the entry in its metadata is not enough.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn complete(
        &self,
        storage: &Storage,
        upload: &Upload,
        (found, object): (&StoredObject, &Object),
        file_expires_at: Option<Timestamp>,
    ) -> Result<()> {
        let entry = entry(storage, &upload.object_key, found);
        match entry.is_some_and(|entry| entry.is_whole(upload)) {
            true => Ok(()),
            false => {
                let side = SideRecord::of(upload, object, file_expires_at);
                self.write(storage, &side).await.map(|_| ())
            }
        }
    }

    /// Writes the side object of a COMPLETE upload. Returns whether it did: without a key nothing is written.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn keep(&self, upload: &Upload) -> Result<bool> {
        let storage = self.storages.get(&upload.storage_id)?;
        let Some(object) = &upload.object else {
            return Ok(false);
        };
        let side = SideRecord::of(upload, object, upload.file_expires_at);
        self.write(&storage, &side).await
    }

    async fn write(&self, storage: &Storage, side: &SideRecord) -> Result<bool> {
        let key = storage.side_key(side.id());
        let sealed = storage.record_keys.seal_side(storage.place(&key), side);
        let Some(sealed) = sealed.map(Bytes::from) else {
            return Ok(false);
        };
        let object = NewObject {
            mime: OPAQUE.to_owned(),
            upload_id: side.id().clone(),
            size: Some(sealed.len() as u64),
            md5: Some(Md5::of(&sealed)),
            crc64nvme: None,
            integrity: Integrity::Md5,
            record: None,
            placement: Box::new(side.placement(storage.demand())),
            key,
        };
        storage.store.replace(&object, sealed).await?;
        Ok(true)
    }

    /// The change of an expiring COMPLETE upload that was acknowledged, and that the state store has lost: its side object has a
    /// later expiry.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn kept_longer(&self, upload: &Upload) -> Result<Option<Event>> {
        let storage = self.storages.get(&upload.storage_id)?;
        if storage.record_keys.is_empty() {
            return Ok(None);
        }
        let side = match self.side(&storage, &upload.id).await? {
            Side::Record(side) => side,
            Side::Absent => return Ok(None),
            Side::Unreadable => return Err(unreadable_side(&upload.id)),
        };
        let (at, known) = (side.expires_at(), upload.file_expires_at);
        let is_later = known.is_some_and(|known| at.is_none_or(|at| at > known));
        Ok(is_later.then_some(Event::KeptUntil { at }))
    }

    /// Deletes the side object of an upload whose file is deleted.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn forget(&self, upload: &Upload) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        self.delete(&storage, &upload.id).await
    }

    /// Deletes the side object of an upload, if it has one.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn delete(&self, storage: &Storage, id: &UploadId) -> Result<()> {
        match storage.record_keys.is_empty() {
            true => Ok(()),
            false => storage.store.delete(&storage.side_key(id)).await,
        }
    }

    /// Searches the storages of a caller for an upload whose record is lost. If the record `exists`, and the caller must not know
    /// that, the search takes as long and finds nothing. It is found if tenant and id determine the begin of
    /// its key, or if it has a side object.
    ///
    /// # Errors
    /// `Unavailable` if a store is unavailable, or if there are too many searches.
    pub(super) async fn find(
        &self,
        caller: &Caller,
        id: &UploadId,
        exists: bool,
    ) -> Result<Option<Upload>> {
        let storages = self.storages.of_caller(caller);
        let has_keys = |storage: &Arc<Storage>| !storage.record_keys.is_empty();
        if !storages.iter().any(has_keys) || self.absent.has(&caller.owner, id) {
            return Ok(None);
        }
        self.rate.turn().await?;
        let mut failed = None;
        for storage in storages {
            match Box::pin(self.find_in(&storage, &caller.owner.tenant, id)).await {
                Ok(Some(upload)) if !exists => return Ok(Some(upload)),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.absent.remember(&caller.owner, id);
        Ok(None)
    }

    async fn find_in(
        &self,
        storage: &Storage,
        tenant: &str,
        id: &UploadId,
    ) -> Result<Option<Upload>> {
        match self.side(storage, id).await? {
            Side::Record(side) => return self.of_side(storage, *side).await,
            // The entry is older than it.
            Side::Unreadable => return Ok(None),
            Side::Absent => {}
        }
        let Some(prefix) = storage.key.prefix_of(&storage.prefix, tenant, id) else {
            return Ok(None);
        };
        // No other upload has such a key. A second object can only be a foreign one.
        let page = storage.store.list(&prefix, None).await?;
        for key in &page.keys {
            if storage.key.upload_of(&storage.prefix, key).as_ref() == Some(id)
                && let Some(found) = storage.store.head(key).await?
                && let Some(upload) = self.of_entry(storage, key, &found)
                && upload.id == *id
            {
                return Ok(Some(upload));
            }
        }
        Ok(None)
    }

    /// The side object of an upload.
    async fn side(&self, storage: &Storage, id: &UploadId) -> Result<Side> {
        let key = storage.side_key(id);
        let read = match storage.store.read(&key, None, None).await {
            Err(error) if error.kind() == Kind::NotFound => return Ok(Side::Absent),
            read => read?,
        };
        let mut text = BytesMut::new();
        let mut read = read;
        while let Some(bytes) = read.try_next().await? {
            if text.len() + bytes.len() > MAX_SIDE_LENGTH {
                return Ok(Side::Unreadable);
            }
            text.extend_from_slice(&bytes);
        }
        let side = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| storage.record_keys.open_side(storage.place(&key), text));
        let side = side.filter(|side| side.id() == id);
        Ok(side.map_or(Side::Unreadable, |side| Side::Record(Box::new(side))))
    }

    /// Whether a record that names this storage is of `storage`. Several storages can have one bucket, and the prefix of one can
    /// begin with that of another. A name that is not configured any more is not compared.
    fn is_of(&self, storage: &Storage, named: &str) -> bool {
        named == storage.id || self.storages.get(named).is_err()
    }

    /// The record of a side object, if the object is still the one that the upload made.
    async fn of_side(&self, storage: &Storage, side: SideRecord) -> Result<Option<Upload>> {
        if !self.is_of(storage, side.storage_id()) {
            return Ok(None);
        }
        let key = side.object_key().to_owned();
        let found = storage.store.head(&key).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let facts = facts(storage, &key, &found);
        if !side.is_of(&facts) {
            return Ok(None);
        }
        let upload = side.rebuild(&facts);
        Ok(Some(upload).filter(|upload| self.is_kept(upload)))
    }

    /// The record of the entry in the metadata of an object.
    fn of_entry(&self, storage: &Storage, key: &str, found: &StoredObject) -> Option<Upload> {
        let entry = entry(storage, key, found)?;
        let facts = facts(storage, key, found);
        let is_met = |demand: &Encryption| demand.is_met_by(found.placement.encryption.as_ref());
        let is_its = self.is_of(storage, entry.storage_id()) && entry.is_of(&facts);
        if !is_its || !storage.demand().is_none_or(is_met) {
            return None;
        }
        let upload = entry.rebuild(&facts, self.clock.now());
        Some(upload).filter(|upload| self.is_kept(upload))
    }

    /// Whether neither the file has expired, nor the time for which records are kept.
    fn is_kept(&self, upload: &Upload) -> bool {
        let now = self.clock.now();
        let until = self.keep_complete.map(|kept| upload.updated_at.plus(kept));
        let has_passed = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        !has_passed(upload.file_expires_at) && !has_passed(until)
    }
}

/// The error for an expired file whose side object may keep it longer.
fn unreadable_side(id: &UploadId) -> Error {
    let message = format!(
        "records.key has no key that opens the side object of {id}; the file is kept until it can be read"
    );
    Error::new(Kind::FailedPrecondition, Reason::NotOffered, message)
}

/// The entry in the metadata of an object, if one of the keys has sealed it for this object.
fn entry(storage: &Storage, key: &str, found: &StoredObject) -> Option<ObjectEntry> {
    let keys = &storage.record_keys;
    keys.open_entry(storage.place(key), found.entry()?)
}

fn facts<'a>(storage: &'a Storage, key: &'a str, object: &'a StoredObject) -> Found<'a> {
    let is_proof = storage.capabilities().computes_object_md5 && object.has_digests;
    Found {
        storage_id: &storage.id,
        store_kind: storage.store.kind(),
        bucket: storage.store.bucket(),
        part_size: storage.part_size,
        limits: &storage.limits,
        key,
        object,
        digests: Digests {
            md5: object
                .md5
                .filter(|_| is_proof && object.composite.is_none()),
            crc64nvme: object.crc64nvme,
        },
    }
}
