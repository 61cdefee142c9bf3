//! Parts and objects that the store copies by itself.

use std::sync::Arc;

use super::Receiver;
use crate::{
    blobs::cannot_copy,
    call,
    error::{Error, Result},
    gateway::{audit::audit, copy_from::is_refusal, message::FinishCopy, records::Fence},
    observe::{self, PartToStore},
    upload::{CompositeMd5, Digests, Md5, Part, Upload},
};

// === impl Receiver ===

impl Receiver {
    /// Lets the store copy a part, unless it was recorded before.
    pub(super) async fn copy_part(&mut self, number: u32) -> Result<()> {
        let span = self.upload.span(number);
        let span = span.ok_or_else(|| Error::fault("copy a part: outside the plan"))?;
        let end = span.offset + span.size;
        self.next_offset = Some(end);
        // Its bytes do not pass here, so the digest of the file ends.
        self.chain = None;
        if self.upload.parts.get(number).is_some() {
            return Ok(());
        }
        let in_flight = self.shared.settings.parts_in_flight;
        let (destination, turn) = self.next_turn(in_flight).await?;
        let (shared, committed) = (Arc::clone(&self.shared), self.upload.parts.committed());
        let size = span.size;
        self.in_flight.spawn(call::propagate(async move {
            let part = (number, span);
            let stored = shared.parts.copy_part(&destination, turn, part, committed);
            observe::part(PartToStore { number, size }, stored).await
        }));
        self.count_received(end);
        Ok(())
    }

    /// Checks that the parts of a copy have the MD5s that those of its source have.
    pub(super) fn check_copied(&self, proof: &FinishCopy) -> Result<()> {
        let parts = self.upload.parts.iter_committed();
        let md5s: Option<Vec<Md5>> = parts.map(Part::md5).collect();
        let composite = md5s.map(CompositeMd5::of);
        match proof.composite {
            Some(expected) if composite != Some(expected) => {
                let why = "the ETag of the source is not made of the MD5s of the copied parts";
                Err(cannot_copy(why))
            }
            _ => Ok(()),
        }
    }

    /// Lets the store copy the whole object, and completes the upload if the MD5 of the object proves the copy.
    ///
    /// # Errors
    /// A [refusal](is_refusal) if the store does not copy it, or does not prove it. If it then has an object, the parts that are
    /// sent instead of it have a session, whose commit replaces that object.
    pub(super) async fn copy_object(&mut self) -> Result<Upload> {
        let shared = Arc::clone(&self.shared);
        let copied = tokio::select! {
            copied = self.copy_and_complete() => copied,
            error = shared.drain.streams_end() => Err(error),
        };
        if copied.as_ref().is_err_and(is_refusal) {
            self.destination().await?;
        } else {
            audit(
                &self.upload.owner,
                "complete",
                Some(&self.upload.id),
                &copied,
            );
        }
        copied?;
        let size = self.upload.committed_size();
        self.counts.send_modify(|counts| {
            (counts.committed_size, counts.received_size) = (size, size);
        });
        Ok(self.upload.clone())
    }

    async fn copy_and_complete(&mut self) -> Result<()> {
        let (storage, upload) = (Arc::clone(&self.storage), &mut self.upload);
        let no_source = || cannot_copy("the stream has no source to copy from");
        let from = self.copy_from.as_deref().ok_or_else(no_source)?;
        // Without an MD5 in its metadata, which would say more than is known before the copy is compared.
        let object = storage.new_object(upload, Digests::default());
        let copied = storage.copy_object(&object, from).await;
        copied
            .map_err(|error| cannot_copy("the store does not copy the object").caused_by(error))?;
        let unproven = || cannot_copy("the MD5 of the object does not prove the copy");
        let found = storage
            .store
            .head(&object.key)
            .await?
            .ok_or_else(unproven)?;
        let verified = self
            .shared
            .inspector
            .verify(&storage, upload, found)
            .await?;
        let verified = verified.map_err(|_| unproven())?;
        let md5 = verified.digests.md5;
        if md5.is_none() || md5 != upload.promised_md5() {
            return Err(unproven());
        }
        self.shared
            .records
            .complete(upload, &storage, verified, Fence::Writer)
            .await
    }
}
