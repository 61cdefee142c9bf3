//! The keys that seal what the stores keep of records: see [`SealKey`] for the format. A sealed text is bound to its bucket and
//! its key, so that a copy under another key is worthless.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use crate::{
    seal::{self, SealKey},
    upload::{
        Digests, Upload,
        object_record::{ObjectEntry, SideRecord},
    },
};

/// The version of entries in metadata, including their JSON.
const ENTRY: u8 = 1;

/// The version of side objects, including their JSON.
const SIDE: u8 = 2;

/// The longest sealed entry, in bytes. S3 allows 2,048 bytes of metadata, keys included; users may have 1,024, and the other
/// entries of the gateway need less than 160.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const MAX_ENTRY_LENGTH: usize = 860;

/// How many unknown key ids are reported. Every writer of a bucket can make up more.
const MAX_REPORTED: usize = 64;

/// The keys of the table `[[records.key]]`.
#[derive(Debug, Default)]
pub(super) struct RecordKeys {
    /// The first one seals, all of them open.
    keys: Vec<SealKey>,
    /// The ids that sealed texts named, and no key has.
    reported: Mutex<BTreeSet<String>>,
}

/// Where a sealed text is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
}

// === impl RecordKeys ===

impl RecordKeys {
    /// These keys. The first one seals, all of them open.
    pub(super) fn new(keys: Vec<SealKey>) -> Self {
        Self {
            keys,
            reported: Mutex::default(),
        }
    }

    /// Whether there are no keys: then nothing is sealed, and nothing can be opened.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Seals the entry of an upload for the metadata of its object in `bucket`. `None` without a key, or if the entry would be
    /// too long.
    pub(super) fn seal_entry(
        &self,
        bucket: &str,
        upload: &Upload,
        digests: Digests,
    ) -> Option<String> {
        let key = self.keys.first()?;
        let entry = ObjectEntry::of(upload, digests, key.largest_text(MAX_ENTRY_LENGTH))?;
        let place = Place {
            bucket,
            key: &upload.object_key,
        };
        Some(key.seal(ENTRY, &place.bound(), &entry.to_json()))
    }

    /// The entry that one of the keys has sealed for this object.
    pub(super) fn open_entry(&self, place: Place<'_>, sealed: &str) -> Option<ObjectEntry> {
        ObjectEntry::from_json(&self.open(ENTRY, place, sealed)?)
    }

    /// Seals a side object. `None` without a key.
    pub(super) fn seal_side(&self, place: Place<'_>, side: &SideRecord) -> Option<String> {
        let key = self.keys.first()?;
        Some(key.seal(SIDE, &place.bound(), &side.to_json()))
    }

    /// The side object that one of the keys has sealed for this key.
    pub(super) fn open_side(&self, place: Place<'_>, sealed: &str) -> Option<SideRecord> {
        SideRecord::from_json(&self.open(SIDE, place, sealed)?)
    }

    fn open(&self, version: u8, place: Place<'_>, sealed: &str) -> Option<Vec<u8>> {
        let sealed = seal::decode(sealed)?;
        let opened = self
            .keys
            .iter()
            .find_map(|key| key.open(version, &place.bound(), &sealed));
        if opened.is_none() {
            self.report(&sealed);
        }
        opened
    }

    /// Logs once for each key id why its files are not found.
    fn report(&self, sealed: &[u8]) {
        let Some(id) = seal::key_id(sealed) else {
            return;
        };
        if self.keys.iter().any(|key| key.id() == id) {
            return;
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < MAX_REPORTED && reported.insert(id.to_owned()) {
            let id = crate::escape::escaped(id);
            tracing::warn!(
                key_id = %id,
                "records.key has no key with this id: files whose records it sealed are not found once the state store has lost the records"
            );
        }
    }
}

// === impl Place ===

impl Place<'_> {
    fn bound(self) -> Vec<u8> {
        [self.bucket.as_bytes(), &[0], self.key.as_bytes()].concat()
    }
}
