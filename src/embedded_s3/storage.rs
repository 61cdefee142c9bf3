//! Parts, uploads and objects as plain files; [`super::uploads`] holds the calls on uploads. Everything here blocks.
//!
//! ```text
//! format                         the version of all these files
//! objects/<SHA-256 of the key>   JSON manifest of an object: attributes, ETag, upload id, its parts' numbers and sizes
//! sessions/<upload id>           JSON session of an upload that is open
//! parts/<upload id>/<number>     a part's bytes followed by their 16-byte MD5, so that one rename replaces both
//! parts/<upload id>/<number>.crc64nvme   the part's CRC ([`super::part_crc`])
//! temporary/<random>             files that are not complete yet; emptied at start
//! ```
//!
//! A file is written under `temporary/`, synced and renamed into place, and its directory is synced before the call
//! returns. One rename or removal decides each call: that of the session file for create and abort, of the part for a
//! part, of the manifest for complete, put and delete. The steps after it only clean up, and the next start repeats
//! them.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use s3s::s3_error;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use upload_gateway_core::upload::Crc64Nvme;

use super::failure::Outcome;
use super::files::{
    Temporary, absent_as_none, ensure_directory, names, random_name, read_json, remove_durably,
    sync_directory, write_durably, write_json,
};
use super::read::Segment;
use super::receive::Received;
use super::values::hexadecimal;
use crate::private_files;
use crate::unknown_format::UnknownFormat;

/// The version of everything in the directory: its layout, the manifests, the sessions and the parts. Stored in the
/// file `format`; a directory with another one is refused.
const FORMAT: &str = "1";
/// Size in bytes of the MD5 after the bytes of a part.
pub(super) const TRAILER_SIZE: u64 = 16;
/// How many locks all keys share. Calls that change one key exclude each other.
const LOCKS: usize = 64;

/// The directory of one embedded S3, held exclusively.
#[derive(Debug)]
pub(super) struct Storage {
    objects: PathBuf,
    pub(super) sessions: PathBuf,
    parts: PathBuf,
    temporary: PathBuf,
    locks: [Mutex<()>; LOCKS],
    /// Locked while this exists, so that no second process removes what this one is writing.
    _exclusive: File,
}

/// The headers and metadata that a client stores with an object.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Attributes {
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) metadata: std::collections::HashMap<String, String>,
}

/// An open upload.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) key: String,
    pub(super) initiated: SystemTime,
    pub(super) attributes: Attributes,
    /// Whether its parts and its object have a CRC64NVME. Sessions of earlier builds have none.
    #[serde(default)]
    pub(super) crc64nvme: bool,
}

/// A complete object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) key: String,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) modified: SystemTime,
    pub(super) attributes: Attributes,
    pub(super) upload_id: String,
    /// Number and size, in order.
    pub(super) parts: Vec<(u16, u64)>,
    /// Of the whole object. Those of earlier builds and of uploads without it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) crc64nvme: Option<Crc64Nvme>,
}

// === impl Storage ===

impl Storage {
    /// Creates or opens the directory and finishes what a crash interrupted.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        private_files::own_directory(&directory)?;
        let exclusive = private_files::open_or_create(&directory.join("lock"))?;
        exclusive.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process", directory.display()),
            ),
            TryLockError::Error(error) => error,
        })?;
        let storage = Self {
            objects: directory.join("objects"),
            sessions: directory.join("sessions"),
            parts: directory.join("parts"),
            temporary: directory.join("temporary"),
            locks: [const { Mutex::new(()) }; LOCKS],
            _exclusive: exclusive,
        };
        storage.check_format(&directory)?;
        absent_as_none(fs::remove_dir_all(&storage.temporary))?;
        for subdirectory in [
            &storage.objects,
            &storage.sessions,
            &storage.parts,
            &storage.temporary,
        ] {
            ensure_directory(subdirectory)?;
        }
        storage.recover()?;
        Ok(storage)
    }

    /// Refuses a directory in another format than [`FORMAT`] and leaves it as it is; stores the format in a new one.
    fn check_format(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join("format");
        let found = absent_as_none(fs::read(&path))?;
        let found = found.as_deref().map(String::from_utf8_lossy);
        match found.as_deref().map(str::trim) {
            Some(FORMAT) => Ok(()),
            None if !self.objects.try_exists()? => {
                ensure_directory(&self.temporary)?;
                write_durably(self.temporary(), &path, FORMAT.as_bytes())
            }
            found => {
                let stored = format!("the directory {}", directory.display());
                let unknown = UnknownFormat::new(stored, found, FORMAT);
                Err(io::Error::new(io::ErrorKind::InvalidData, unknown))
            }
        }
    }

    /// Finishes completed uploads, and removes parts that belong neither to an object nor to an open upload: those of
    /// aborted uploads, of replaced and deleted objects, of calls that were never acknowledged.
    fn recover(&self) -> io::Result<()> {
        let mut owners = HashSet::new();
        for name in names(&self.objects)? {
            if let Some(manifest) = read_json::<Manifest>(&self.objects.join(name))? {
                if self.session_path(&manifest.upload_id).try_exists()? {
                    self.finish(&manifest)?;
                }
                owners.insert(manifest.upload_id);
            }
        }
        owners.extend(names(&self.sessions)?);
        for upload_id in names(&self.parts)? {
            if !owners.contains(&upload_id) {
                self.discard_parts(&upload_id);
            }
        }
        Ok(())
    }

    /// A new temporary file; it is not created yet.
    pub(super) fn temporary(&self) -> Temporary {
        Temporary::new_in(&self.temporary)
    }

    /// Removes the parts that a completed upload's object does not use, then its session.
    pub(super) fn finish(&self, manifest: &Manifest) -> io::Result<()> {
        let directory = self.parts_path(&manifest.upload_id);
        let used: HashSet<String> = manifest
            .parts
            .iter()
            .map(|(number, _)| part_name(*number))
            .collect();
        for name in names(&directory)?
            .into_iter()
            .filter(|name| !used.contains(name))
        {
            absent_as_none(fs::remove_file(directory.join(name)))?;
        }
        remove_durably(&self.session_path(&manifest.upload_id))?;
        Ok(())
    }

    /// Makes a received body the object of a key.
    pub(super) fn put_object(
        &self,
        key: String,
        attributes: Attributes,
        only_new: bool,
        received: Received,
    ) -> Outcome<Manifest> {
        let _guard = self.lock(&key);
        if only_new && self.object(&key)?.is_some() {
            return Err(s3_error!(PreconditionFailed).into());
        }
        let upload_id = random_name();
        let directory = self.parts_path(&upload_id);
        ensure_directory(&directory)?;
        received.file.publish(&directory.join(part_name(1)))?;
        sync_directory(&directory)?;
        let manifest = Manifest {
            key,
            etag: hexadecimal(&received.md5),
            modified: SystemTime::now(),
            attributes,
            upload_id,
            parts: vec![(1, received.size)],
            crc64nvme: Some(received.crc64nvme),
        };
        self.publish(&manifest)?;
        Ok(manifest)
    }

    /// The object of a key.
    pub(super) fn object(&self, key: &str) -> Outcome<Option<Manifest>> {
        Ok(read_json(&self.object_path(key))?)
    }

    /// All objects, unsorted.
    pub(super) fn objects(&self) -> Outcome<Vec<Manifest>> {
        let mut objects = Vec::new();
        for name in names(&self.objects)? {
            objects.extend(read_json::<Manifest>(&self.objects.join(name))?);
        }
        Ok(objects)
    }

    /// Deletes the object of a key, if there is one.
    pub(super) fn delete_object(&self, key: &str) -> Outcome<()> {
        let _guard = self.lock(key);
        if let Some(manifest) = self.object(key)? {
            remove_durably(&self.session_path(&manifest.upload_id))?;
            remove_durably(&self.object_path(key))?;
            self.discard_parts(&manifest.upload_id);
        }
        Ok(())
    }

    /// The segments of files that hold a range of an object's bytes.
    pub(super) fn segments(
        &self,
        manifest: &Manifest,
        range: &std::ops::Range<u64>,
    ) -> Vec<Segment> {
        let directory = self.parts_path(&manifest.upload_id);
        let mut start = 0;
        let mut segments = Vec::new();
        for (number, size) in &manifest.parts {
            let from = range.start.clamp(start, start + size);
            let to = range.end.clamp(start, start + size);
            if from < to {
                segments.push(Segment {
                    path: directory.join(part_name(*number)),
                    offset: from - start,
                    length: to - from,
                });
            }
            start += size;
        }
        segments
    }

    /// Stores a manifest and removes the parts of the object that it replaces.
    pub(super) fn publish(&self, manifest: &Manifest) -> Outcome<()> {
        let replaced = self.object(&manifest.key)?;
        if let Some(replaced) = &replaced {
            // Its complete may have failed after the manifest and before the removal of the session. Without a
            // manifest, the session would look like an open upload.
            remove_durably(&self.session_path(&replaced.upload_id))?;
        }
        write_json(self.temporary(), &self.object_path(&manifest.key), manifest)?;
        if let Some(replaced) = replaced {
            self.discard_parts(&replaced.upload_id);
        }
        Ok(())
    }

    /// Removes parts that no manifest and no session refers to. If that fails, the next start repeats it.
    pub(super) fn discard_parts(&self, upload_id: &str) {
        // Removed when dropped.
        let removed = self.temporary();
        if let Err(error) = fs::rename(self.parts_path(upload_id), removed.path()) {
            tracing::warn!(upload_id, %error, "cannot remove the parts; the next start repeats it");
        }
    }

    /// Excludes other calls that change this key, until the guard is dropped.
    pub(super) fn lock(&self, key: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index =
            usize::try_from(hasher.finish() % LOCKS as u64).expect("below the number of locks");
        // The lock protects files, not memory, so a panic while it was held does not invalidate anything.
        self.locks[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn object_path(&self, key: &str) -> PathBuf {
        self.objects.join(hexadecimal(&Sha256::digest(key)))
    }

    pub(super) fn session_path(&self, upload_id: &str) -> PathBuf {
        self.sessions.join(upload_id)
    }

    pub(super) fn parts_path(&self, upload_id: &str) -> PathBuf {
        self.parts.join(upload_id)
    }
}

/// The name of a part's file.
pub(super) fn part_name(number: u16) -> String {
    format!("{number:05}")
}

// === impl Manifest ===

impl Manifest {
    /// Bytes of the object.
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|(_, size)| size).sum()
    }
}
