//! Parts, uploads and objects as plain files. Everything here blocks.
//!
//! ```text
//! objects/<SHA-256 of the key>   JSON manifest of an object: attributes, ETag, upload id, its parts' numbers and sizes
//! sessions/<upload id>           JSON session of an upload that is open
//! parts/<upload id>/<number>     a part's bytes followed by their 16-byte MD5, so that one rename replaces both
//! temporary/<random>             whatever is not complete yet; emptied at start
//! ```
//!
//! A file is written under `temporary/`, synced, renamed into place, and its directory is synced before the caller is
//! answered. Each call has one deciding rename or removal: the session file for create and abort, the part for a part,
//! the manifest for complete, put and delete. What comes after it is tidying, which the next start repeats.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use md5::{Digest, Md5};
use s3s::{S3Error, s3_error};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::files::{
    Temporary, absent_as_none, ensure_directory, names, random_name, read_json, remove_durably,
    sync_directory, write_json,
};
use super::read::Segment;
use super::receive::Received;

/// Every part but the last must have at least this size (S3's own limit).
const MINIMUM_PART_SIZE: u64 = 5 << 20;
/// Bytes of MD5 after the bytes of a part.
const TRAILER_SIZE: u64 = 16;
/// Calls that change one key exclude each other; keys share this many locks.
const LOCKS: usize = 64;

/// The directory of one embedded S3, held exclusively.
#[derive(Debug)]
pub(super) struct Storage {
    objects: PathBuf,
    sessions: PathBuf,
    parts: PathBuf,
    temporary: PathBuf,
    locks: [Mutex<()>; LOCKS],
    /// Locked while this lives, so that no second process tidies away what this one is writing.
    _exclusive: File,
}

/// What a client may say about an object and gets back with it.
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
    attributes: Attributes,
}

/// A complete object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) key: String,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) modified: SystemTime,
    pub(super) attributes: Attributes,
    upload_id: String,
    /// Number and size, in order.
    parts: Vec<(u16, u64)>,
}

/// A part as it is on disk.
#[derive(Debug)]
pub(super) struct StoredPart {
    pub(super) number: u16,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) modified: SystemTime,
}

/// What a complete call asks for.
#[derive(Debug)]
pub(super) struct Completion {
    /// Part number and ETag without quotes, in the order given.
    pub(super) parts: Vec<(u16, String)>,
    /// Refuse if the key already has an object.
    pub(super) only_new: bool,
    pub(super) size: Option<i64>,
}

/// Why a call failed: a refusal with its S3 code, or an internal error.
#[derive(Debug)]
pub(super) struct Failure(S3Error);

/// The result of a call on the storage.
pub(super) type Outcome<T> = Result<T, Failure>;

/// Lower-case hexadecimal, as in ETags.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === impl Storage ===

impl Storage {
    /// Creates or opens the directory and finishes what a crash interrupted.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let exclusive = File::create(directory.join("lock"))?;
        exclusive.try_lock()?;
        let storage = Self {
            objects: directory.join("objects"),
            sessions: directory.join("sessions"),
            parts: directory.join("parts"),
            temporary: directory.join("temporary"),
            locks: [const { Mutex::new(()) }; LOCKS],
            _exclusive: exclusive,
        };
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

    /// Finishes completed uploads, and drops parts that belong neither to an object nor to an open upload: those of
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

    /// A place for a body that is being received.
    pub(super) fn temporary(&self) -> Temporary {
        Temporary::new_in(&self.temporary)
    }

    /// Opens an upload and returns its id.
    pub(super) fn create_upload(&self, key: String, attributes: Attributes) -> Outcome<String> {
        let upload_id = random_name();
        ensure_directory(&self.parts_path(&upload_id))?;
        let initiated = SystemTime::now();
        let session = Session {
            key,
            initiated,
            attributes,
        };
        write_json(self.temporary(), &self.session_path(&upload_id), &session)?;
        Ok(upload_id)
    }

    /// Makes a received body a part of an open upload; an earlier part with this number is replaced.
    pub(super) fn store_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        received: Received,
    ) -> Outcome<()> {
        let directory = self.parts_path(upload_id);
        {
            let _guard = self.lock(key);
            self.session(key, upload_id)?;
            received.file.publish(&directory.join(part_name(number)))?;
        }
        // Outside the lock, so that parts of one upload sync side by side. An abort may have come in between.
        absent_as_none(sync_directory(&directory))?.ok_or_else(no_such_upload)?;
        Ok(())
    }

    /// The first `limit` parts of an open upload with numbers above `after`, in order, and whether there are more.
    pub(super) fn list_parts(
        &self,
        key: &str,
        upload_id: &str,
        after: u16,
        limit: usize,
    ) -> Outcome<(Vec<StoredPart>, bool)> {
        self.session(key, upload_id)?;
        let directory = self.parts_path(upload_id);
        let names = absent_as_none(names(&directory))?.ok_or_else(no_such_upload)?;
        let mut numbers: Vec<u16> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.retain(|number| *number > after);
        numbers.sort_unstable();
        let truncated = numbers.len() > limit;
        numbers.truncate(limit);
        let mut parts = Vec::with_capacity(numbers.len());
        for number in numbers {
            parts.push(read_part(&directory, number)?.ok_or_else(no_such_upload)?);
        }
        Ok((parts, truncated))
    }

    /// Makes an object of the parts named, without moving a byte of them.
    pub(super) fn complete(
        &self,
        key: &str,
        upload_id: &str,
        completion: &Completion,
    ) -> Outcome<Manifest> {
        let _guard = self.lock(key);
        if let Some(done) = self.completed_before(key, upload_id, completion)? {
            return Ok(done);
        }
        let session = self.session(key, upload_id)?;
        if completion.only_new && self.object(key)?.is_some() {
            return Err(s3_error!(PreconditionFailed).into());
        }
        let directory = self.parts_path(upload_id);
        let (parts, etag) = check_parts(&directory, completion)?;
        // A part whose own call has not synced the directory yet may be among those named.
        sync_directory(&directory)?;
        let manifest = Manifest {
            key: session.key,
            etag,
            modified: SystemTime::now(),
            attributes: session.attributes,
            upload_id: upload_id.to_owned(),
            parts,
        };
        self.publish(&manifest)?;
        self.finish(&manifest)?;
        Ok(manifest)
    }

    fn completed_before(
        &self,
        key: &str,
        upload_id: &str,
        completion: &Completion,
    ) -> Outcome<Option<Manifest>> {
        let Some(manifest) = self
            .object(key)?
            .filter(|manifest| manifest.upload_id == upload_id)
        else {
            return Ok(None);
        };
        if composite_etag(&completion.parts).is_none_or(|etag| etag != manifest.etag) {
            return Err(no_such_upload());
        }
        self.finish(&manifest)?;
        Ok(Some(manifest))
    }

    /// Drops the parts that a completed upload's object does not use, then its session.
    fn finish(&self, manifest: &Manifest) -> io::Result<()> {
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

    /// Ends an open upload and drops its parts.
    pub(super) fn abort(&self, key: &str, upload_id: &str) -> Outcome<()> {
        let _guard = self.lock(key);
        self.session(key, upload_id)?;
        remove_durably(&self.session_path(upload_id))?;
        self.discard_parts(upload_id);
        Ok(())
    }

    /// All open uploads with their ids, unsorted.
    pub(super) fn open_uploads(&self) -> Outcome<Vec<(String, Session)>> {
        let mut uploads = Vec::new();
        for upload_id in names(&self.sessions)? {
            if let Some(session) = read_json(&self.session_path(&upload_id))? {
                uploads.push((upload_id, session));
            }
        }
        Ok(uploads)
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

    /// The pieces of files that hold a range of an object's bytes.
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

    /// Puts a manifest in place and drops the parts of the object it replaces.
    fn publish(&self, manifest: &Manifest) -> Outcome<()> {
        let replaced = self.object(&manifest.key)?;
        if let Some(replaced) = &replaced {
            // Its complete may have failed between manifest and session; without its manifest it must not look open.
            remove_durably(&self.session_path(&replaced.upload_id))?;
        }
        write_json(self.temporary(), &self.object_path(&manifest.key), manifest)?;
        if let Some(replaced) = replaced {
            self.discard_parts(&replaced.upload_id);
        }
        Ok(())
    }

    /// Drops parts nobody can reach any more. Moved away at once; if that or the removal fails, the next start repeats it.
    fn discard_parts(&self, upload_id: &str) {
        let grave = self.temporary();
        if let Err(error) = fs::rename(self.parts_path(upload_id), grave.path()) {
            tracing::warn!(upload_id, %error, "discard parts");
        }
    }

    fn session(&self, key: &str, upload_id: &str) -> Outcome<Session> {
        // Ids come from outside and become file names.
        let plausible =
            upload_id.len() == 32 && upload_id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let session: Option<Session> = if plausible {
            read_json(&self.session_path(upload_id))?
        } else {
            None
        };
        session
            .filter(|session| session.key == key)
            .ok_or_else(no_such_upload)
    }

    fn lock(&self, key: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index =
            usize::try_from(hasher.finish() % LOCKS as u64).expect("below the number of locks");
        // The lock guards files, not memory: a panic while it was held leaves nothing in it to distrust.
        self.locks[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn object_path(&self, key: &str) -> PathBuf {
        self.objects.join(hexadecimal(&Sha256::digest(key)))
    }

    fn session_path(&self, upload_id: &str) -> PathBuf {
        self.sessions.join(upload_id)
    }

    fn parts_path(&self, upload_id: &str) -> PathBuf {
        self.parts.join(upload_id)
    }
}

fn part_name(number: u16) -> String {
    format!("{number:05}")
}

fn read_part(directory: &Path, number: u16) -> io::Result<Option<StoredPart>> {
    let Some(mut file) = absent_as_none(File::open(directory.join(part_name(number))))? else {
        return Ok(None);
    };
    let metadata = file.metadata()?;
    let size = metadata.len().saturating_sub(TRAILER_SIZE);
    let mut md5 = [0; 16];
    file.seek(SeekFrom::Start(size))?;
    file.read_exact(&mut md5)?;
    Ok(Some(StoredPart {
        number,
        size,
        md5,
        modified: metadata.modified()?,
    }))
}

/// Compares the parts named with those on disk; numbers with sizes, and the object's ETag.
fn check_parts(directory: &Path, completion: &Completion) -> Outcome<(Vec<(u16, u64)>, String)> {
    if !completion
        .parts
        .is_sorted_by(|(left, _), (right, _)| left < right)
    {
        return Err(s3_error!(InvalidPartOrder).into());
    }
    let mut parts = Vec::with_capacity(completion.parts.len());
    for (number, etag) in &completion.parts {
        let part = read_part(directory, *number)?.filter(|part| hexadecimal(&part.md5) == *etag);
        let part = part.ok_or_else(|| {
            s3_error!(InvalidPart, "part {number} is missing or has another ETag")
        })?;
        parts.push((*number, part.size));
    }
    let Some((_, but_last)) = parts.split_last() else {
        return Err(s3_error!(MalformedXML).into());
    };
    if let Some((number, size)) = but_last.iter().find(|(_, size)| *size < MINIMUM_PART_SIZE) {
        return Err(s3_error!(EntityTooSmall, "part {number} has {size} bytes").into());
    }
    let size: u64 = parts.iter().map(|(_, size)| size).sum();
    if completion
        .size
        .is_some_and(|expected| u64::try_from(expected) != Ok(size))
    {
        return Err(s3_error!(InvalidRequest, "the parts have {size} bytes together").into());
    }
    let etag = composite_etag(&completion.parts).ok_or_else(|| s3_error!(InvalidPart))?;
    Ok((parts, etag))
}

/// The MD5 of the parts' MD5s, and their count; `None` if an ETag is not an MD5.
fn composite_etag(parts: &[(u16, String)]) -> Option<String> {
    let mut digest = Md5::new();
    for (_, etag) in parts {
        let md5 = u128::from_str_radix(etag, 16)
            .ok()
            .filter(|_| etag.len() == 32)?;
        digest.update(md5.to_be_bytes());
    }
    Some(format!(
        "{}-{}",
        hexadecimal(&digest.finalize()),
        parts.len()
    ))
}

fn no_such_upload() -> Failure {
    s3_error!(NoSuchUpload).into()
}

// === impl Manifest ===

impl Manifest {
    /// Bytes of the object.
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|(_, size)| size).sum()
    }
}

// === impl Failure ===

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        Self(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(S3Error::internal_error(error))
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(S3Error::internal_error(error))
    }
}

impl From<Failure> for S3Error {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}
