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
        stream::part::{DigestChain, ReceivedPart},
    },
    observe::{self, PartToStore},
    upload::{
        Crc64Nvme, DigestChoice, Digests, FileDigest, Md5, SINGLE_PUT_MAX, StoredObject, Upload,
    },
};

/// What the sender promised about the whole file.
#[derive(Debug, Clone, Copy)]
struct Promised {
    md5s: [Option<Md5>; 3],
    crc64nvme: Option<Crc64Nvme>,
}

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
        let is_whole = self.upload.parts.is_empty()
            && self.upload.fits_single_put(total)
            && self.in_flight.is_empty();
        self.check_comparable(&finish, is_whole)?;
        let promised = Promised {
            md5s: [self.upload.promised_md5(), self.promised, finish.file_id],
            crc64nvme: finish.crc64nvme,
        };
        let mut proven = proof.map(|proof| proof.digests).unwrap_or_default();
        if is_whole {
            match self.finish_single(total, promised).await? {
                (digests, None) => proven = digests.or(proven),
                (digests, Some(found)) => {
                    let digests = digests.or(proven);
                    return Ok(Content::Put(Box::new(Verified { found, digests })));
                }
            }
        } else if let Some(current_part) = self.current_part.take() {
            self.dispatch(current_part).await?;
        }
        self.settle_all().await?;
        let digests = committed_digest(&self.upload)?.map(FileDigest::finish);
        let is_copy = self.upload.copy_of.is_some() && !self.upload.parts.is_empty();
        if is_copy && promised.is_any() && digests.is_none() && proof.is_none() {
            return Err(no_digest("file_id", "MD5"));
        }
        self.check_promise(promised, digests.unwrap_or_default())
            .await?;
        if let Some(proof) = proof {
            self.check_copied(proof)?;
        }
        Ok(Content::Parts {
            file_size: total,
            proven,
        })
    }

    /// Checks that the digests in the last message can be compared. The CRC-64 of a file that is put whole always can, and its MD5
    /// if its size was not known when the digest was chosen.
    fn check_comparable(&self, finish: &Finish, is_whole: bool) -> Result<()> {
        let computed = self.chain.as_ref().map(|_| self.upload.file.file_digest);
        let has_md5 = computed.is_some_and(|computed| {
            computed.allows_md5() || is_whole && self.upload.settled_size().is_none()
        });
        if finish.file_id.is_some() && !has_md5 {
            return Err(no_digest("file_id", "MD5"));
        }
        if finish.crc64nvme.is_some() && !is_whole && computed != Some(DigestChoice::Crc64Nvme) {
            return Err(no_digest("crc64nvme", "CRC64NVME"));
        }
        Ok(())
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

    /// Puts a small file as one object, and returns its digests and the object. If the store has no conditional put, the file becomes
    /// the only part of a session instead: `None`.
    async fn finish_single(
        &mut self,
        total: u64,
        promised: Promised,
    ) -> Result<(Digests, Option<StoredObject>)> {
        debug_assert!(total <= SINGLE_PUT_MAX, "a larger file is stored in parts");
        let current_part = match self.current_part.take() {
            Some(current_part) => current_part,
            None => self.begin_part(0).await?,
        };
        let CurrentPart {
            number,
            span,
            buffer,
        } = current_part;
        let bytes = buffer.freeze();
        let md5 = self.shared.hasher.md5(bytes.clone(), true).await?;
        let digests = Digests {
            md5: Some(md5),
            crc64nvme: Some(Crc64Nvme::of(&bytes)),
        };
        // Checked before the put, so that a wrong file is not stored.
        self.check_promise(promised, digests).await?;
        let known = self.chain.as_ref().map(|_| digests).unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        let observed = PartToStore {
            number,
            size: total,
        };
        let put = shared
            .parts
            .put_whole(&self.storage, &mut self.upload, (&bytes, digests));
        if let Some(found) = observe::part(observed, put).await? {
            return Ok((known, Some(found)));
        }
        let part = ReceivedPart {
            number,
            offset: span.offset,
            bytes,
            is_urgent: true,
            committed: 0,
            link: self.chain.as_mut().map(DigestChain::link),
        };
        let destination = self.destination().await?;
        let turn = self.storage.turns.take(&self.upload.id).await?;
        let stored = shared.parts.store_part(&destination, turn, part);
        let stored = observe::part(observed, stored).await?;
        self.count_part(stored);
        Ok((known, None))
    }

    async fn check_promise(&mut self, promised: Promised, digests: Digests) -> Result<()> {
        let other_md5 = digests.md5.and_then(|md5| promised.other_md5(md5));
        let other_crc64 = promised.crc64nvme.zip(digests.crc64nvme);
        let error = if let Some(mismatch) = other_md5.zip(digests.md5) {
            digest_mismatch("file_id", "MD5", mismatch)
        } else if let Some(mismatch) = other_crc64.filter(|(promised, found)| promised != found) {
            digest_mismatch("crc64nvme", "CRC64NVME", mismatch)
        } else {
            return Ok(());
        };
        Err(self.shared.inspector.refuse(&mut self.upload, error).await)
    }
}

// === impl Promised ===

impl Promised {
    fn is_any(&self) -> bool {
        self.crc64nvme.is_some() || self.md5s.iter().any(Option::is_some)
    }

    /// A promised MD5 that is not this one.
    fn other_md5(&self, md5: Md5) -> Option<Md5> {
        let mut promised = self.md5s.into_iter().flatten();
        promised.find(|promised| *promised != md5)
    }
}

/// The error of a digest that cannot be compared.
fn no_digest(field: &str, digest: &str) -> Error {
    let message = format!(
        "the upload keeps no {digest} of the whole file, so {field} cannot be checked; it stays OPEN: finish it without \
         {field}, or open the next one with file_digest = {digest}"
    );
    Error::precondition(Reason::DigestUnknown, message)
}

/// The error of a message after `finish`. Does not return while there is no message: some clients close their side only
/// after the response.
async fn refuse_message<S>(messages: &mut S) -> Error
where
    S: Stream<Item = Result<Message>> + Unpin + Send,
{
    loop {
        match messages.next().await {
            // It may be malformed.
            Some(Ok(Message::Piece(_))) => {}
            Some(Ok(_)) => return Error::sequence("no message may follow finish"),
            Some(Err(_)) | None => future::pending().await,
        }
    }
}
