//! The digest of a whole file, continued from what the record keeps.

use super::refusal::digest_mismatch;
use crate::{
    error::{Error, Result},
    upload::{FileDigest, Md5, Upload},
};

/// The whole-file digest up to the committed size, if one is kept.
pub(super) fn committed_digest(upload: &Upload) -> Result<Option<FileDigest>> {
    if upload.file.skip_file_digest {
        return Ok(None);
    }
    digest_before(upload, upload.parts.committed() + 1)
}

/// The digest of the file up to the start of a part, if it is known.
pub(super) fn digest_before(upload: &Upload, number: u32) -> Result<Option<FileDigest>> {
    if number == 1 {
        return Ok(Some(FileDigest::default()));
    }
    let before = upload.parts.get(number - 1);
    let state = before.and_then(|part| part.digest.as_ref());
    let digest = state.map(FileDigest::resume).transpose();
    digest.map_err(|error| Error::internal("continue a file digest", error))
}

/// The MD5 of the whole file, if it is known.
///
/// # Errors
/// `DataLoss` if it is not the promised one.
pub(super) fn received_md5(upload: &Upload) -> Result<Option<Md5>> {
    let received = committed_digest(upload)?.map(FileDigest::finish);
    match (upload.promised_md5(), received) {
        (Some(promised), Some(received)) if promised != received => {
            Err(digest_mismatch(promised, received))
        }
        (Some(_) | None, _) => Ok(received),
    }
}
