//! Compares bytes that are sent again with the recorded parts, and skips them.

use bytes::Bytes;

use super::hash::Hasher;
use crate::{
    error::{Error, Reason, Result},
    gateway::digest::digest_before,
    upload::{FileDigest, Part, Span, Upload},
};

/// The parts without a checksum of their own that a stream has sent again so far.
#[derive(Debug, Default)]
pub(super) struct Overlap(Option<Compared>);

#[derive(Debug)]
struct Compared {
    /// The number of the last of them.
    number: u32,
    /// The digest of the file up to the end of that part.
    digest: FileDigest,
}

// === impl Overlap ===

impl Overlap {
    /// Whether part `number` was recorded with these bytes. If not, it must be put into the store. Set `keeps_digest` if
    /// the stream computes a digest of the whole file.
    ///
    /// # Errors
    /// `FailedPrecondition` with `PrefixMismatch` if the part was recorded with other bytes.
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
        let is_same = match recorded.checksum {
            Some(checksum) => {
                let integrity = checksum.integrity();
                hasher.part(integrity, bytes.clone(), true).await? == checksum
            }
            // The digest of this part is only claimed, so it cannot be compared. It is replaced.
            None if !keeps_digest => return Ok(false),
            None => {
                let digest = self.digest(upload, hasher, (number, span), bytes).await?;
                matches(recorded, &digest)
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

    /// The digest of the file up to the end of this part. If the store lists no digests, the parts of a rebuilt
    /// record have none. The digest of the whole file is known at the end of the last of them, so they are compared
    /// together, from the start.
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

fn matches(recorded: &Part, digest: &FileDigest) -> bool {
    let known = recorded.digest.as_ref();
    known.is_none_or(|known| *known == digest.state())
}
