//! The calls on multipart uploads. Everything here blocks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use md5::{Digest, Md5};
use s3s::s3_error;
use upload_gateway_core::upload::Crc64Nvme;

use super::checksum;
use super::failure::{Failure, Outcome};
use super::files::{
    absent_as_none, ensure_directory, names, random_name, read_json, remove_durably,
    sync_directory, write_json,
};
use super::part_crc;
use super::receive::Received;
use super::storage::{Attributes, Manifest, Session, Storage, TRAILER_SIZE, part_name};
use super::values::hexadecimal;

/// Every part but the last must have at least this size (S3's own limit).
const MINIMUM_PART_SIZE: u64 = 5 << 20;

/// A part on disk.
#[derive(Debug)]
pub(super) struct StoredPart {
    pub(super) number: u16,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) modified: SystemTime,
    /// Where it was asked for.
    pub(super) crc64nvme: Option<Crc64Nvme>,
}

/// A part as CompleteMultipartUpload names it.
#[derive(Debug)]
pub(super) struct NamedPart {
    pub(super) number: u16,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) crc64nvme: Option<Crc64Nvme>,
}

/// The parameters of a CompleteMultipartUpload call.
#[derive(Debug)]
pub(super) struct Completion {
    /// In the order given.
    pub(super) parts: Vec<NamedPart>,
    /// The CRC64NVME that the object must have.
    pub(super) crc64nvme: Option<Crc64Nvme>,
    /// Refuse if the key already has an object.
    pub(super) only_new: bool,
    /// The size in bytes that the object must have.
    pub(super) size: Option<i64>,
}

/// The parts of an object, checked.
struct Checked {
    /// Number and size, in order.
    parts: Vec<(u16, u64)>,
    etag: String,
    crc64nvme: Option<Crc64Nvme>,
}

// === impl Storage ===

impl Storage {
    /// Creates an upload, whose parts and object have a CRC64NVME if that is asked for, and returns its id.
    pub(super) fn create_upload(
        &self,
        key: String,
        attributes: Attributes,
        crc64nvme: bool,
    ) -> Outcome<String> {
        let upload_id = random_name();
        ensure_directory(&self.parts_path(&upload_id))?;
        let initiated = SystemTime::now();
        let session = Session {
            key,
            initiated,
            attributes,
            crc64nvme,
        };
        write_json(self.temporary(), &self.session_path(&upload_id), &session)?;
        Ok(upload_id)
    }

    /// Makes a received body a part of an open upload; it replaces an earlier part with this number. Returns its CRC64NVME
    /// if the upload has them.
    ///
    /// # Errors
    /// `InvalidRequest` if the request named one and the upload has none, as in S3.
    pub(super) fn store_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        received: Received,
    ) -> Outcome<Option<Crc64Nvme>> {
        let directory = self.parts_path(upload_id);
        let part = directory.join(part_name(number));
        let crc64nvme = {
            let _guard = self.lock(key);
            let has_crc = self.session(key, upload_id)?.crc64nvme;
            if has_crc {
                part_crc::keep(self.temporary(), &part, &received.md5, received.crc64nvme)?;
            } else if received.crc64nvme_named {
                let what = "this upload was created without the checksum algorithm CRC64NVME";
                return Err(s3_error!(InvalidRequest, "{what}").into());
            }
            received.file.publish(&part)?;
            has_crc.then_some(received.crc64nvme)
        };
        // Outside of the lock, so that parts of one upload sync concurrently. The upload may have been aborted in
        // between.
        absent_as_none(sync_directory(&directory))?.ok_or_else(no_such_upload)?;
        Ok(crc64nvme)
    }

    /// An open upload, its first `limit` parts with numbers above `after`, in order, and whether there are more.
    pub(super) fn list_parts(
        &self,
        key: &str,
        upload_id: &str,
        after: u16,
        limit: usize,
    ) -> Outcome<(Session, Vec<StoredPart>, bool)> {
        let session = self.session(key, upload_id)?;
        let directory = self.parts_path(upload_id);
        let names = absent_as_none(names(&directory))?.ok_or_else(no_such_upload)?;
        let numbers = names.iter().filter_map(|name| name.parse::<u16>().ok());
        let mut numbers: Vec<u16> = numbers.collect();
        numbers.retain(|number| *number > after);
        numbers.sort_unstable();
        let truncated = numbers.len() > limit;
        numbers.truncate(limit);
        let mut parts = Vec::with_capacity(numbers.len());
        for number in numbers {
            let part = read_part(&directory, number, session.crc64nvme)?;
            parts.push(part.ok_or_else(no_such_upload)?);
        }
        Ok((session, parts, truncated))
    }

    /// Makes an object of the named parts, without copying them.
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
        let checked = check_parts(&directory, completion, session.crc64nvme)?;
        // The call that stored a named part may not have synced the directory yet.
        sync_directory(&directory)?;
        let manifest = Manifest {
            key: session.key,
            etag: checked.etag,
            modified: SystemTime::now(),
            attributes: session.attributes,
            upload_id: upload_id.to_owned(),
            parts: checked.parts,
            crc64nvme: checked.crc64nvme,
        };
        self.publish(&manifest)?;
        self.finish(&manifest)?;
        Ok(manifest)
    }

    /// The object, if this upload has already made it of the same parts.
    ///
    /// # Errors
    /// `NoSuchUpload` if this upload made it of other parts.
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
        if let Some(crc) = manifest.crc64nvme {
            checksum::compare(completion.crc64nvme, crc)?;
        }
        self.finish(&manifest)?;
        Ok(Some(manifest))
    }

    /// Ends an open upload and removes its parts.
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

    fn session(&self, key: &str, upload_id: &str) -> Outcome<Session> {
        // Ids come from clients and become file names.
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
}

/// A part on disk, with its CRC if that is asked for.
fn read_part(directory: &Path, number: u16, with_crc: bool) -> io::Result<Option<StoredPart>> {
    let path = directory.join(part_name(number));
    let Some(mut file) = absent_as_none(File::open(&path))? else {
        return Ok(None);
    };
    let metadata = file.metadata()?;
    let size = metadata.len().saturating_sub(TRAILER_SIZE);
    let mut md5 = [0; 16];
    file.seek(SeekFrom::Start(size))?;
    file.read_exact(&mut md5)?;
    let crc64nvme = with_crc.then(|| part_crc::read(&path, &mut file, size, &md5));
    Ok(Some(StoredPart {
        number,
        size,
        md5,
        modified: metadata.modified()?,
        crc64nvme: crc64nvme.transpose()?,
    }))
}

/// Compares the named parts with those on disk. The CRCs are combined if the upload has them, or the call names one.
fn check_parts(directory: &Path, completion: &Completion, has_crc: bool) -> Outcome<Checked> {
    if !completion
        .parts
        .is_sorted_by(|left, right| left.number < right.number)
    {
        return Err(s3_error!(InvalidPartOrder).into());
    }
    let with_crc = has_crc || completion.names_crc();
    let mut crc64nvme = with_crc.then(Crc64Nvme::default);
    let mut parts = Vec::with_capacity(completion.parts.len());
    for named in &completion.parts {
        let number = named.number;
        let part = read_part(directory, number, with_crc)?.filter(|part| named.is(part));
        let part = part.ok_or_else(|| {
            s3_error!(
                InvalidPart,
                "part {number} is missing or has another ETag or CRC64NVME"
            )
        })?;
        let combined = crc64nvme.zip(part.crc64nvme);
        crc64nvme = combined.map(|(whole, next)| whole.combine(next, part.size));
        parts.push((number, part.size));
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
    if let Some(crc) = crc64nvme {
        checksum::compare(completion.crc64nvme, crc)?;
    }
    let etag = composite_etag(&completion.parts).ok_or_else(|| s3_error!(InvalidPart))?;
    Ok(Checked {
        parts,
        etag,
        crc64nvme,
    })
}

/// The ETag of a multipart object: the MD5 of the parts' MD5s, and their count. `None` if a part's ETag is not an MD5.
fn composite_etag(parts: &[NamedPart]) -> Option<String> {
    let mut digest = Md5::new();
    for NamedPart { etag, .. } in parts {
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

// === impl NamedPart ===

impl NamedPart {
    fn is(&self, part: &StoredPart) -> bool {
        let same_crc = self.crc64nvme.is_none() || self.crc64nvme == part.crc64nvme;
        self.etag == hexadecimal(&part.md5) && same_crc
    }
}

// === impl Completion ===

impl Completion {
    fn names_crc(&self) -> bool {
        let parts = self.parts.iter().map(|part| part.crc64nvme);
        parts.chain([self.crc64nvme]).any(|crc| crc.is_some())
    }
}
