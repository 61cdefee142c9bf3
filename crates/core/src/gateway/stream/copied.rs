//! Parts that the store copies by itself, and records of them.

use super::part::{Destination, PartWriter, ReceivedPart};
use crate::{
    blobs::{Copied, PartCopy, cannot_copy},
    error::Result,
    gateway::{copy_from::CopyFrom, storage::Turn},
    upload::{Checksum, Md5, Part, Span},
};

// === impl PartWriter ===

impl PartWriter {
    /// Lets the store copy the part at `span`, which has a turn, and records it. `committed` parts were recorded before.
    ///
    /// # Errors
    /// A [refusal](crate::gateway::copy_from::is_refusal) also if the store does not report the MD5 of the part, or if its session is
    /// lost: what puts the bytes also finds out what the store has.
    pub(super) async fn copy_part(
        &self,
        to: &Destination,
        turn: Turn,
        (number, span): (u32, Span),
        committed: u32,
    ) -> Result<Part> {
        let no_source = || cannot_copy("the stream has no source to copy from");
        let from = to.copy_from.as_deref().ok_or_else(no_source)?;
        let mut turn = Some(turn);
        let copied = to.copy(&mut turn, from, (number, span), None).await;
        // Also if it is unavailable for longer than it is retried: it may not reach the source, and answer that as a fault of its own.
        let Copied { receipt, md5 } = copied
            .map_err(|error| cannot_copy("the store does not copy a part").caused_by(error))?;
        let no_md5 = || cannot_copy("the store does not report the MD5 of what it copies");
        let stored = Part {
            number,
            offset: span.offset,
            size: span.size,
            checksum: Some(md5.ok_or_else(no_md5)?.into()),
            receipt,
            digest: None,
        };
        self.record(to, &stored, committed).await?;
        Ok(stored)
    }
}

// === impl Destination ===

impl Destination {
    /// Lets the store copy a part by itself of which the bytes, with this checksum, were received from the source, and returns the
    /// receipt.
    /// `None` if the store does not prove that it has copied the same bytes, or cannot: then they are put.
    pub(super) async fn copy_received(
        &self,
        turn: &mut Option<Turn>,
        part: &ReceivedPart,
        checksum: Checksum,
    ) -> Option<String> {
        let offered = self.copy_from.as_deref().filter(|from| from.is_offered());
        let span = Span {
            offset: part.offset,
            size: part.bytes.len() as u64,
        };
        let (Some(from), Some(md5), 1..) = (offered, checksum.md5(), span.size) else {
            return None;
        };
        let copied = self.copy(turn, from, (part.number, span), Some(md5));
        let why = match copied.await {
            Ok(copied) if copied.md5 == Some(md5) => return Some(copied.receipt),
            Ok(_) => cannot_copy("the store does not prove what it copies"),
            // Also if it is unavailable for longer than it is retried: the store of the copy may reach the source through a network
            // that does not work.
            Err(error) => error,
        };
        from.refuse(&why);
        None
    }

    async fn copy(
        &self,
        turn: &mut Option<Turn>,
        from: &CopyFrom,
        (number, span): (u32, Span),
        md5: Option<Md5>,
    ) -> Result<Copied> {
        let range = span.offset..span.offset + span.size;
        let part = PartCopy {
            number,
            writer: self.writer,
            is_whole: range == (0..from.size()),
            range,
            md5,
        };
        let session = self.session();
        let copied = self
            .storage
            .copy_part(&self.upload_id, turn.take(), &session, (&part, from));
        copied.await
    }
}
