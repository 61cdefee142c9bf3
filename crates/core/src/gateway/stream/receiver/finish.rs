//! The end of a stream: what was sent is compared with what was declared and promised, and the commit begins.

use std::time::Duration;

use futures::Stream;
use tokio::time::Instant;

use super::{CurrentPart, Receiver};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        digest::committed_digest,
        message::{Finish, Message},
        refusal::digest_mismatch,
        stream::{
            part::{DigestChain, ReceivedPart},
            silence::next_before,
        },
    },
    upload::{FileDigest, Md5, SINGLE_PUT_MAX, Upload},
};

/// How long the receiver waits for an invalid message after `finish`.
const FINISH_GRACE: Duration = Duration::from_millis(200);

// === impl Receiver ===

impl Receiver {
    /// Finishes the upload: the last part, the checks, the commit.
    pub(super) async fn finish<S>(&mut self, finish: Finish, messages: &mut S) -> Result<Upload>
    where
        S: Stream<Item = Result<Message>> + Unpin + Send,
    {
        let total = self
            .next_offset
            .unwrap_or_else(|| self.upload.committed_size());
        self.check_total(total, finish.file_size)?;
        if finish.file_id.is_some() && self.chain.is_none() {
            return Err(Error::precondition(
                Reason::DigestUnknown,
                "this upload keeps no digest of the whole file, so file_id cannot be checked",
            ));
        }
        // Short, because some clients half-close only after they have the response.
        if let Ok(Some(_)) = next_before(messages, Instant::now() + FINISH_GRACE).await {
            return Err(Error::sequence("no message may follow finish"));
        }
        let promised = [self.upload.promised_md5(), self.promised, finish.file_id];
        if self.upload.parts.is_empty()
            && self.upload.fits_single_put(total)
            && self.in_flight.is_empty()
        {
            self.finish_single(total, promised).await?;
        } else {
            if let Some(current_part) = self.current_part.take() {
                self.dispatch(current_part).await?;
            }
            self.settle_all().await?;
        }
        let digest = committed_digest(&self.upload)?.map(FileDigest::finish);
        self.check_promise(promised, digest).await?;
        self.counts.send_modify(|counts| counts.committing = true);
        self.shared.commits.commit(&mut self.upload, total).await?;
        Ok(self.upload.clone())
    }

    /// What was sent must have the declared size.
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

    /// Puts a small file whole; to a store without conditional puts as the only part of a session.
    async fn finish_single(&mut self, total: u64, promised: [Option<Md5>; 3]) -> Result<()> {
        debug_assert!(total <= SINGLE_PUT_MAX, "more goes in parts");
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
        // Before the put: a wrong file is not stored at all.
        if promised.iter().any(Option::is_some) {
            let digest = self.shared.hasher.part(bytes.clone(), true).await?;
            self.check_promise(promised, Some(digest)).await?;
        }
        let link = self.chain.as_mut().map(DigestChain::link);
        let part = ReceivedPart {
            number,
            offset: span.offset,
            bytes,
            is_last: true,
            committed: 0,
            link,
        };
        let parts = &self.shared.parts;
        let whole = parts
            .store_whole(&self.storage, &self.upload, self.writer, part)
            .await?;
        let stored = match whole {
            Ok(stored) => stored,
            Err(part) => {
                let destination = self.destination().await?;
                self.shared.parts.store_part(&destination, part).await?
            }
        };
        self.count(stored);
        Ok(())
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
