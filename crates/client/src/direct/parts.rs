//! The parts of a direct upload: signed in windows, sent several at once.

use std::collections::HashMap;

use futures::future::try_join_all;
use tokio::{
    sync::{Mutex, mpsc},
    time::sleep_until,
    try_join,
};

use super::{Direct, file::Span};
use crate::{
    ClientError, Event, Md5,
    proto::v1::{PartRef, SignPartRequest, SignPartsRequest, Signature, SignedStep},
};

/// Parts on their way at once.
const LANES: u64 = 4;

/// The most bytes of parts that are held in memory, unless one part is larger.
const HELD: u64 = 256 * 1024 * 1024;

/// Parts that are signed in one call: few, so that they are sent before their signatures expire.
const WINDOW: usize = 8;

/// A part's number and its part_plan in the file.
#[derive(Debug, Clone, Copy)]
struct PlannedPart {
    number: i32,
    span: Span,
}

/// A part that is to be sent.
#[derive(Debug)]
struct SignedPart {
    part_plan: PlannedPart,
    md5: Md5,
    signature: Signature,
}

// === impl Direct ===

impl<F: FnMut(Event<'_>) + Send> Direct<'_, F> {
    /// Sends the parts of the plan in `step` that the store does not have with the file's bytes.
    pub(super) async fn send_parts(&self, step: &SignedStep) -> Result<(), ClientError> {
        let part_size = u64::try_from(step.part_size).unwrap_or_default();
        if part_size == 0 {
            return Err(ClientError::protocol("the step dictates no part size"));
        }
        let lanes = (HELD / part_size).clamp(1, LANES);
        let (signed, parts) = mpsc::channel(1);
        let parts = Mutex::new(parts);
        let sending = (0..lanes).map(|_| self.send_signed(&step.upload_id, &parts));
        try_join!(
            self.sign_plan(step, part_size, signed),
            try_join_all(sending)
        )?;
        Ok(())
    }

    /// Signs the parts that are to be sent, window by window.
    async fn sign_plan(
        &self,
        step: &SignedStep,
        part_size: u64,
        signed: mpsc::Sender<SignedPart>,
    ) -> Result<(), ClientError> {
        // A part whose MD5 nobody knows is sent again.
        let held: HashMap<i32, &str> = step
            .part_data
            .iter()
            .map(|part| (part.part, part.md5.as_str()))
            .collect();
        let mut planned = plan(self.file.span().size, part_size).peekable();
        while planned.peek().is_some() {
            let window = planned.by_ref().take(WINDOW).collect();
            for part in self.sign_missing(&step.upload_id, window, &held).await? {
                // Nobody takes it only when a part has failed, which ends this, too.
                let _ = signed.send(part).await;
            }
        }
        Ok(())
    }

    /// One lane: sends signed parts while there are any.
    async fn send_signed(
        &self,
        upload_id: &str,
        parts: &Mutex<mpsc::Receiver<SignedPart>>,
    ) -> Result<(), ClientError> {
        let next = async || parts.lock().await.recv().await;
        while let Some(part) = next().await {
            self.send_part(upload_id, part).await?;
        }
        Ok(())
    }

    /// Signs those of the parts that the store does not have with the file's bytes.
    async fn sign_missing(
        &self,
        upload_id: &str,
        planned: Vec<PlannedPart>,
        held: &HashMap<i32, &str>,
    ) -> Result<Vec<SignedPart>, ClientError> {
        let mut missing = Vec::new();
        for part_plan in planned {
            let md5 = self.file.digest(part_plan.span).await?;
            let is_held = held.get(&part_plan.number) == Some(&md5.to_string().as_str());
            if is_held {
                self.progress.skipped(part_plan.span.size);
            } else {
                self.progress.lacks(part_plan.span.offset);
                missing.push((part_plan, md5));
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let request = SignPartsRequest {
            upload_id: upload_id.to_owned(),
            parts: missing
                .iter()
                .map(|(part_plan, md5)| PartRef {
                    part: part_plan.number,
                    file_id: md5.to_string(),
                })
                .collect(),
        };
        let signed = self.ask(request, |mut client, request| async move {
            client.signing.sign_parts(request).await
        });
        let steps = signed.await?.steps;
        if steps.len() != missing.len() {
            return Err(ClientError::protocol("not as many steps as parts"));
        }
        let signed = missing.into_iter().zip(steps);
        let signed = signed.map(|((part_plan, md5), step)| SignedPart {
            part_plan,
            md5,
            signature: step.signature.unwrap_or_default(),
        });
        Ok(signed.collect())
    }

    /// Sends one part until the store has it; each further try has a fresh signature.
    async fn send_part(&self, upload_id: &str, part: SignedPart) -> Result<(), ClientError> {
        let PlannedPart { number, span } = part.part_plan;
        sleep_until(self.progress.turn(span.size)).await;
        let mut signature = part.signature;
        let mut tries = self.tries();
        loop {
            let Err(failure) = self.send(&signature, span).await else {
                return Ok(());
            };
            tries.wait(&self.progress, failure).await?;
            let request = SignPartRequest {
                upload_id: upload_id.to_owned(),
                part: number,
                file_id: part.md5.to_string(),
            };
            let signed = self.ask(request, |mut client, request| async move {
                client.signing.sign_part(request).await
            });
            signature = signed.await?.signature.unwrap_or_default();
        }
    }
}

/// The parts of a file; all but the last have the same size.
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
        let sizes =
            |size| -> Vec<_> { plan(size, 5).map(|part_plan| part_plan.span.size).collect() };
        assert_eq!(sizes(10), [5, 5]);
        assert_eq!(sizes(11), [5, 5, 1]);
        assert_eq!(sizes(4), [4]);
        assert_eq!(sizes(0), [0; 0]);
        let last = plan(11, 5).last().unwrap();
        assert_eq!((last.number, last.span.offset), (3, 10));
    }
}
