//! What is sent again is compared with what was recorded, and skipped.

use bytes::Bytes;

use super::receive::Receiver;
use crate::{
    error::{Error, Reason, Result},
    upload::{FileDigest, Span, Upload},
};

/// What a stream has sent again so far of parts whose own digests are not known.
#[derive(Debug)]
pub(super) struct Overlap {
    /// The last of them.
    number: u32,
    /// The digest of the file up to its end.
    digest: FileDigest,
}

// === impl Receiver ===

impl Receiver {
    /// Whether a part was recorded with these bytes; otherwise it is to be sent to the store.
    ///
    /// # Errors
    /// `FailedPrecondition`, `PrefixMismatch` when it was recorded with others.
    pub(super) async fn is_recorded(
        &mut self,
        number: u32,
        span: Span,
        bytes: &Bytes,
    ) -> Result<bool> {
        let Some(recorded) = self.upload.parts.get(number) else {
            return Ok(false);
        };
        let is_same = match recorded.md5 {
            Some(md5) => self.gateway.digest(bytes.clone()).await? == md5,
            // A part whose digest is only claimed cannot be compared: it is sent again, in its place.
            None if self.chain.is_none() => return Ok(false),
            None => self.fits_file_digest(number, span, bytes).await?,
        };
        if is_same {
            return Ok(true);
        }
        let message = format!("part {number} differs from what was sent before");
        Err(Error::precondition(Reason::PrefixMismatch, message)
            .with("part", number)
            .with("offset", span.offset))
    }

    /// Parts of a rebuilt record have no MD5 where the store does not tell it. The digest of the whole file is known at the
    /// end of the last of them, so they are compared together, from the beginning.
    async fn fits_file_digest(&mut self, number: u32, span: Span, bytes: &Bytes) -> Result<bool> {
        let before = match self.overlap.take() {
            Some(overlap) if overlap.number + 1 == number => Some(overlap.digest),
            _ => digest_before(&self.upload, number)?,
        };
        let Some(before) = before else {
            return Err(Error::wrong_offset(
                self.upload.committed_size(),
                span.offset,
            ));
        };
        let digest = self.gateway.hasher.file(before, bytes.clone()).await?;
        let recorded = self.upload.parts.get(number);
        let known = recorded.and_then(|part| part.digest.as_ref());
        let fits = known.is_none_or(|known| *known == digest.state());
        self.overlap = Some(Overlap { number, digest });
        Ok(fits)
    }
}

/// The whole-file digest up to the committed size, where one is kept.
pub(super) fn digest_so_far(upload: &Upload) -> Result<Option<FileDigest>> {
    if upload.file.skip_file_digest {
        return Ok(None);
    }
    digest_before(upload, upload.parts.committed() + 1)
}

/// The digest of the file up to the beginning of a part, where it is known.
fn digest_before(upload: &Upload, number: u32) -> Result<Option<FileDigest>> {
    if number == 1 {
        return Ok(Some(FileDigest::default()));
    }
    let before = upload.parts.get(number - 1);
    let state = before.and_then(|part| part.digest.as_ref());
    let digest = state.map(FileDigest::resume).transpose();
    digest.map_err(|error| Error::internal("resume a file digest", error))
}
