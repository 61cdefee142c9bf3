//! The digest of a whole file, continued from the state in the record.

use super::refusal::digest_mismatch;
use crate::{
    error::{Error, Result},
    upload::{DigestChoice, Digests, FileDigest, Upload},
};

/// The digest of the file up to the committed size, if the upload has one.
pub(super) fn committed_digest(upload: &Upload) -> Result<Option<FileDigest>> {
    if upload.file.file_digest == DigestChoice::None {
        return Ok(None);
    }
    digest_before(upload, upload.parts.committed() + 1)
}

/// The digest of the file up to the start of a part, if it is known.
pub(super) fn digest_before(upload: &Upload, number: u32) -> Result<Option<FileDigest>> {
    if number == 1 {
        return Ok(FileDigest::begin(upload.file.file_digest));
    }
    let before = upload.parts.get(number - 1);
    let state = before.and_then(|part| part.digest.as_ref());
    let digest = state.map(FileDigest::resume).transpose();
    digest.map_err(|error| Error::internal("continue a file digest", error))
}

/// The digest of the whole file as received, if it is known.
///
/// # Errors
/// `DataLoss` if it is not the promised MD5.
pub(super) fn received(upload: &Upload) -> Result<Digests> {
    let received = committed_digest(upload)?.map(FileDigest::finish);
    let received = received.unwrap_or_default();
    match (upload.promised_md5(), received.md5) {
        (Some(promised), Some(received)) if promised != received => {
            Err(digest_mismatch("file_id", "MD5", (promised, received)))
        }
        (Some(_) | None, _) => Ok(received),
    }
}
