//! Bytes that are sent again are compared with what was recorded, and skipped.

use bytes::Bytes;

use super::hash::Hasher;
use crate::{
    error::{Error, Reason, Result},
    gateway::digest::digest_before,
    upload::{FileDigest, Part, Span, Upload},
};

/// The parts without own MD5s that a stream has sent again so far.
#[derive(Debug, Default)]
pub(super) struct Overlap(Option<Compared>);

#[derive(Debug)]
struct Compared {
    /// The last of them.
    number: u32,
    /// The digest of the file up to its end.
    digest: FileDigest,
}

// === impl Overlap ===

impl Overlap {
    /// Whether part `number` was recorded with these bytes; otherwise it must be sent to the store. `keeps_digest` if the
    /// stream keeps a digest of the whole file.
    ///
    /// # Errors
    /// `FailedPrecondition`, `PrefixMismatch` if it was recorded with other bytes.
    pub(super) async fn is_recorded(
        &mut self,
        upload: &Upload,
        hasher: &Hasher,
        (number, span): (u32, Span),
        bytes: &Bytes,
        keeps_digest: bool,
    ) -> Result<bool> {
        let Some(recorded) = upload.parts.get(number) else {
            return Ok(false);
        };
        let is_same = match recorded.md5 {
            Some(md5) => hasher.part(bytes.clone(), true).await? == md5,
            // A part whose digest is only claimed cannot be compared: it is sent again, in its place.
            None if !keeps_digest => return Ok(false),
            None => {
                let digest = self.digest(upload, hasher, (number, span), bytes).await?;
                fits(recorded, &digest)
            }
        };
        if is_same {
            return Ok(true);
        }
        let message = format!("part {number} differs from what was sent before");
        Err(Error::precondition(Reason::PrefixMismatch, message)
            .with("part", number)
            .with("offset", span.offset))
    }

    /// The digest of the file up to the end of this part. Parts of a rebuilt record have no MD5 if the store does not list
    /// it. The digest of the whole file is known at the end of the last of them, so they are compared together, from the
    /// start.
    async fn digest(
        &mut self,
        upload: &Upload,
        hasher: &Hasher,
        (number, span): (u32, Span),
        bytes: &Bytes,
    ) -> Result<FileDigest> {
        let before = match self.0.take() {
            Some(last) if last.number + 1 == number => Some(last.digest),
            _ => digest_before(upload, number)?,
        };
        let before =
            before.ok_or_else(|| Error::wrong_offset(upload.committed_size(), span.offset))?;
        let digest = hasher.file(before, bytes.clone()).await?;
        self.0 = Some(Compared {
            number,
            digest: digest.clone(),
        });
        Ok(digest)
    }
}

fn fits(recorded: &Part, digest: &FileDigest) -> bool {
    let known = recorded.digest.as_ref();
    known.is_none_or(|known| *known == digest.state())
}
