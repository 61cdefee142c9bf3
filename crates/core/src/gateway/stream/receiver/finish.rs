//! The end of a stream: checks the size and the digest, and starts the commit.

use std::{future, sync::Arc};

use futures::{Stream, StreamExt};

use super::{CurrentPart, Receiver};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        audit::audit,
        commit::Content,
        digest::committed_digest,
        message::{Finish, FinishCopy, Message},
        object_records::Verified,
        refusal::digest_mismatch,
        stream::{
            part::{DigestChain, ReceivedPart},
            single_put::Whole,
        },
    },
    observe::{self, PartToStore},
    upload::{FileDigest, Md5, SINGLE_PUT_MAX, Upload},
};

// === impl Receiver ===

impl Receiver {
    /// Finishes the upload: the last part, the checks and the commit. A message that arrives before the commit is refused.
    /// `proof` is what proves a copy of which not all bytes were received.
    pub(super) async fn finish<S>(
        &mut self,
        finish: Finish,
        proof: Option<FinishCopy>,
        messages: &mut S,
    ) -> Result<Upload>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let content = tokio::select! {
            biased;
            error = refuse_message(messages) => return Err(error),
            content = self.store_rest(finish, proof.as_ref()) => content?,
        };
        self.counts.send_modify(|counts| counts.committing = true);
        let commits = &self.shared.commits;
        let committed = commits.commit(&mut self.upload, content).await;
        let upload = &self.upload;
        audit(&upload.owner, "complete", Some(&upload.id), &committed);
        committed?;
        Ok(upload.clone())
    }

    /// Stores what is not stored yet, and checks the size and the digest. A copy whose bytes were not all received is only
    /// finished with a proof, not by another sender.
    async fn store_rest(&mut self, finish: Finish, proof: Option<&FinishCopy>) -> Result<Content> {
        let total = self
            .next_offset
            .unwrap_or_else(|| self.upload.committed_size());
        self.check_total(total, finish.file_size)?;
        if finish.file_id.is_some() && self.chain.is_none() {
            return Err(no_digest());
        }
        let promised = [self.upload.promised_md5(), self.promised, finish.file_id];
        if self.upload.parts.is_empty()
            && self.upload.fits_single_put(total)
            && self.in_flight.is_empty()
        {
            if let Some(mut verified) = self.finish_single(total, promised).await? {
                verified.md5 = verified.md5.or_else(|| proof.and_then(|proof| proof.md5));
                return Ok(Content::Put(Box::new(verified)));
            }
        } else if let Some(current_part) = self.current_part.take() {
            self.dispatch(current_part).await?;
        }
        self.settle_all().await?;
        let digest = committed_digest(&self.upload)?.map(FileDigest::finish);
        let is_promised = promised.iter().any(Option::is_some);
        let is_copy = self.upload.copy_of.is_some() && !self.upload.parts.is_empty();
        if is_copy && is_promised && digest.is_none() && proof.is_none() {
            return Err(no_digest());
        }
        self.check_promise(promised, digest).await?;
        if let Some(proof) = proof {
            self.check_copied(proof)?;
        }
        Ok(Content::Parts {
            file_size: total,
            proven: proof.and_then(|proof| proof.md5),
        })
    }

    /// Checks the number of received bytes against the declared size.
    fn check_total(&self, total: u64, finished: Option<u64>) -> Result<()> {
        let declared = self.upload.settled_size();
        if let (Some(declared), Some(finished)) = (declared, finished)
            && declared != finished
        {
            let message = format!("{finished}, but the upload was opened for {declared} bytes");
            return Err(Error::invalid("finish.file_size", message));
        }
        if finished.is_some_and(|finished| finished < total) {
            let message = format!("{total} bytes were sent");
            return Err(Error::new(Kind::OutOfRange, Reason::SizeExceeded, message));
        }
        let wanted = declared
            .or(finished)
            .unwrap_or(total)
            .max(self.upload.committed_size());
        if total < wanted {
            return Err(Error::precondition(
                Reason::Incomplete,
                format!("{total} of {wanted} bytes were sent; resume by upload_id"),
            )
            .with("file_size", wanted));
        }
        Ok(())
    }

    /// Puts a small file as one object, and returns it. If the store has no conditional put, the file becomes the only part of a
    /// session instead: `None`.
    async fn finish_single(
        &mut self,
        total: u64,
        promised: [Option<Md5>; 3],
    ) -> Result<Option<Verified>> {
        debug_assert!(total <= SINGLE_PUT_MAX, "a larger file is stored in parts");
        let current_part = match self.current_part.take() {
            Some(current_part) => current_part,
            None => self.begin_part(0)?,
        };
        let CurrentPart {
            number,
            span,
            buffer,
        } = current_part;
        let bytes = buffer.freeze();
        let md5 = self.shared.hasher.part(bytes.clone(), true).await?;
        // Checked before the put, so that a wrong file is not stored.
        self.check_promise(promised, Some(md5)).await?;
        let shared = Arc::clone(&self.shared);
        let observed = PartToStore {
            number,
            size: total,
        };
        let whole = Whole { bytes: &bytes, md5 };
        let put = shared
            .parts
            .put_whole(&self.storage, &mut self.upload, whole);
        if let Some(found) = observe::part(observed, put).await? {
            let md5 = self.chain.as_ref().map(|_| md5);
            return Ok(Some(Verified { found, md5 }));
        }
        let current_part = ReceivedPart {
            number,
            offset: span.offset,
            bytes,
            is_urgent: true,
            committed: 0,
            link: self.chain.as_mut().map(DigestChain::link),
        };
        let destination = self.destination().await?;
        let turn = self.storage.turns.take(&self.upload.id).await?;
        let stored = shared.parts.store_part(&destination, turn, current_part);
        let stored = observe::part(observed, stored).await?;
        self.count_part(stored);
        Ok(None)
    }

    async fn check_promise(
        &mut self,
        promised: [Option<Md5>; 3],
        digest: Option<Md5>,
    ) -> Result<()> {
        let Some(digest) = digest else { return Ok(()) };
        match promised
            .into_iter()
            .flatten()
            .find(|promised| *promised != digest)
        {
            None => Ok(()),
            Some(promised) => {
                let error = digest_mismatch(promised, digest);
                Err(self.shared.inspector.refuse(&mut self.upload, error).await)
            }
        }
    }
}

/// The error of a digest that cannot be compared.
fn no_digest() -> Error {
    Error::precondition(
        Reason::DigestUnknown,
        "this upload keeps no digest of the whole file, so file_id cannot be checked",
    )
}

/// The error of a message after `finish`. Does not return while there is no message: some clients close their side only
/// after the response.
async fn refuse_message<S>(messages: &mut S) -> Error
where
    S: Stream<Item = Result<Message>> + Unpin + Send,
{
    match messages.next().await {
        Some(Ok(_)) => Error::sequence("no message may follow finish"),
        Some(Err(_)) | None => future::pending().await,
    }
}
