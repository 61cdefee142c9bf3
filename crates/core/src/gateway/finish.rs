//! The end of a stream: what was sent is held against what was announced and promised, and the commit begins.

use std::time::Duration;

use futures::Stream;
use tokio::time::Instant;

use super::{
    commit::digest_mismatch,
    message::{Finish, Message},
    overlap::digest_so_far,
    part::{DigestChain, ReceivedPart},
    receive::{CurrentPart, Receiver, next_before},
};
use crate::{
    error::{Error, Kind, Reason, Result},
    upload::{FileDigest, Md5, SINGLE_PUT_MAX, Upload},
};

/// How long a message after `finish` is looked for.
const FINISH_GRACE: Duration = Duration::from_millis(200);

// === impl Receiver ===

impl Receiver {
    /// Ends the upload: the last part, the checks, the commit.
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
        // A client that only half-closes once it has its answer is not waited for.
        if let Ok(Some(_)) = next_before(messages, Instant::now() + FINISH_GRACE).await {
            return Err(Error::sequence("nothing may follow finish"));
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
        let digest = digest_so_far(&self.upload)?.map(FileDigest::finish);
        self.check_promise(promised, digest).await?;
        self.counts.send_modify(|counts| counts.committing = true);
        self.gateway.commit(&mut self.upload, total).await?;
        Ok(self.upload.clone())
    }

    /// What was sent must be what was announced.
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

    /// Puts a small file whole; a store without conditional puts gets it as the only part of a session.
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
        // Before anything is put: a wrong file is not stored at all.
        if promised.iter().any(Option::is_some) {
            let digest = self.gateway.digest(bytes.clone()).await?;
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
        let whole = self
            .gateway
            .store_whole(&self.storage, &self.upload, self.writer, part)
            .await?;
        let stored = match whole {
            Ok(stored) => stored,
            Err(part) => {
                let destination = self.destination().await?;
                self.gateway.store_part(&destination, part).await?
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
                Err(self.gateway.refuse(&mut self.upload, error).await)
            }
        }
    }
}
