//! The parts of a direct upload: signed in batches, several in flight.

use std::collections::HashMap;

use futures::future::try_join_all;
use tokio::{
    sync::{Mutex, mpsc},
    time::sleep_until,
    try_join,
};

use super::{file::Span, job::Job};
use crate::{
    digest::Md5,
    error::ClientError,
    proto::v1::{Part, PartRef, SignPartRequest, SignPartsRequest, Signature, SignedStep},
};

/// The number of parts in flight.
const MAX_IN_FLIGHT: u64 = 4;

/// The maximum size of all parts in memory, in bytes, unless one part is larger.
const MAX_MEMORY: u64 = 256 * 1024 * 1024;

/// The number of parts that are signed in one call: few, so that they are sent before their signatures expire.
const BATCH: usize = 8;

/// The parts of one upload.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    job: &'a Job,
    upload_id: &'a str,
    part_size: u64,
    /// The parts that the store has, by number.
    stored: HashMap<i32, &'a Part>,
}

/// A part's number and its place in the file.
#[derive(Debug, Clone, Copy)]
struct PlannedPart {
    number: i32,
    span: Span,
}

/// A part that the store lacks.
#[derive(Debug)]
struct SignedPart {
    part: PlannedPart,
    md5: Md5,
    signature: Signature,
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// The parts that `step` plans.
    ///
    /// # Errors
    /// `Protocol` if the step has no part size.
    pub(super) fn new(job: &'a Job, step: &'a SignedStep) -> Result<Self, ClientError> {
        let part_size = u64::try_from(step.part_size).unwrap_or_default();
        if part_size == 0 {
            return Err(ClientError::protocol("the step has no part size"));
        }
        let stored = step.part_data.iter();
        Ok(Self {
            job,
            upload_id: &step.upload_id,
            part_size,
            stored: stored.map(|part| (part.part, part)).collect(),
        })
    }

    /// Sends the parts that the store lacks, or of which it has other bytes.
    pub(super) async fn send(&self) -> Result<(), ClientError> {
        let senders = (MAX_MEMORY / self.part_size).clamp(1, MAX_IN_FLIGHT);
        let (signed, parts) = mpsc::channel(1);
        let parts = Mutex::new(parts);
        let sending = (0..senders).map(|_| self.send_signed(&parts));
        try_join!(self.sign_all(signed), try_join_all(sending))?;
        Ok(())
    }

    /// Signs the parts that are to be sent, batch by batch.
    async fn sign_all(&self, signed: mpsc::Sender<SignedPart>) -> Result<(), ClientError> {
        let mut planned = plan(self.job.file.span().size, self.part_size).peekable();
        while planned.peek().is_some() {
            let batch = planned.by_ref().take(BATCH).collect();
            for part in self.sign_missing(batch).await? {
                // Fails only if all senders have failed, which also ends this.
                let _ = signed.send(part).await;
            }
        }
        Ok(())
    }

    /// Sends signed parts, one after the other, until there are no more.
    async fn send_signed(
        &self,
        parts: &Mutex<mpsc::Receiver<SignedPart>>,
    ) -> Result<(), ClientError> {
        let next = async || parts.lock().await.recv().await;
        while let Some(part) = next().await {
            self.send_part(part).await?;
        }
        Ok(())
    }

    /// Signs those of the parts that the store does not have with the same MD5 or CRC-64.
    async fn sign_missing(
        &self,
        planned: Vec<PlannedPart>,
    ) -> Result<Vec<SignedPart>, ClientError> {
        let mut missing = Vec::new();
        for part in planned {
            let stored = self.stored.get(&part.number);
            let (md5, crc64) = self.job.file.digests(part.span).await?;
            let is_stored = stored.is_some_and(|stored| {
                stored.md5 == md5.to_string() || stored.crc64nvme == Some(crc64.0)
            });
            if is_stored {
                self.job.progress.skipped(part.span.size);
            } else {
                self.job.progress.missing(part.span.offset);
                missing.push((part, md5));
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let parts = missing.iter().map(|(part, md5)| PartRef {
            part: part.number,
            file_id: md5.to_string(),
        });
        let request = SignPartsRequest {
            upload_id: self.upload_id.to_owned(),
            parts: parts.collect(),
        };
        let signed = self.job.call(request, |mut client, request| async move {
            client.signing.sign_parts(request).await
        });
        let steps = signed.await?.steps;
        if steps.len() != missing.len() {
            let problem = "the number of steps is not the number of parts";
            return Err(ClientError::protocol(problem));
        }
        let signed = missing.into_iter().zip(steps);
        let signed = signed.map(|((part, md5), step)| SignedPart {
            part,
            md5,
            signature: step.signature.unwrap_or_default(),
        });
        Ok(signed.collect())
    }

    /// Sends one part, and retries with fresh signatures until the store has it.
    async fn send_part(&self, signed: SignedPart) -> Result<(), ClientError> {
        let (job, PlannedPart { number, span }) = (self.job, signed.part);
        sleep_until(job.progress.send_time(span.size)).await;
        let mut signature = signed.signature;
        let mut retries = job.retries();
        loop {
            let Err(failure) = job.put(&signature, span).await else {
                return Ok(());
            };
            retries.retry(&job.progress, failure).await?;
            let request = SignPartRequest {
                upload_id: self.upload_id.to_owned(),
                part: number,
                file_id: signed.md5.to_string(),
            };
            let step = job.call(request, |mut client, request| async move {
                client.signing.sign_part(request).await
            });
            signature = step.await?.signature.unwrap_or_default();
        }
    }
}

/// The parts of a file. All but the last have the same size.
fn plan(size: u64, part_size: u64) -> impl Iterator<Item = PlannedPart> {
    (1..).map_while(move |number| {
        let offset = u64::try_from(number - 1).ok()? * part_size;
        let span = Span {
            offset,
            size: part_size.min(size.checked_sub(offset)?),
        };
        (span.size > 0).then_some(PlannedPart { number, span })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_file_cover_it() {
        let sizes = |size| -> Vec<_> { plan(size, 5).map(|part| part.span.size).collect() };
        assert_eq!(sizes(10), [5, 5]);
        assert_eq!(sizes(11), [5, 5, 1]);
        assert_eq!(sizes(4), [4]);
        assert_eq!(sizes(0), [0; 0]);
        let last = plan(11, 5).last().unwrap();
        assert_eq!((last.number, last.span.offset), (3, 10));
    }
}
