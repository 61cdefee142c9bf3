//! The parts of a direct upload: signed in windows, sent several at once.

use std::{collections::HashMap, future};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep_until;

use super::Direct;
use crate::{
    client::{ClientError, Event},
    proto::v1::{PartRef, SignPartRequest, SignPartsRequest, Signature, SignedStep},
    upload::{MIB, Md5, Span},
};

/// Parts on their way at once.
const LANES: u64 = 4;

/// The most bytes of parts that are held in memory, unless one part is larger.
const HELD: u64 = 256 * MIB;

/// Parts that are signed in one call: few, so that they are sent before their signatures expire.
const WINDOW: usize = 8;

/// A part's number and its place in the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: i32,
    span: Span,
}

/// A part that is to be sent.
#[derive(Debug)]
struct SignedPart {
    place: Place,
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
        // A part whose MD5 nobody knows is sent again.
        let held: HashMap<i32, &str> = step
            .part_data
            .iter()
            .map(|part| (part.part, part.md5.as_str()))
            .collect();
        let lanes = usize::try_from((HELD / part_size).clamp(1, LANES)).unwrap_or(1);
        stream::iter(plan(self.file.span().size, part_size))
            .chunks(WINDOW)
            .then(|places| self.sign_missing(&step.upload_id, places, &held))
            .map_ok(|parts| stream::iter(parts).map(Ok))
            .try_flatten()
            .map_ok(|part| self.send_part(&step.upload_id, part))
            .try_buffer_unordered(lanes)
            .try_for_each(|()| future::ready(Ok(())))
            .await
    }

    /// Signs those of the parts that the store does not have with the file's bytes.
    async fn sign_missing(
        &self,
        upload_id: &str,
        places: Vec<Place>,
        held: &HashMap<i32, &str>,
    ) -> Result<Vec<SignedPart>, ClientError> {
        let mut missing = Vec::new();
        for place in places {
            let md5 = self.file.digest(place.span).await?;
            let is_held = held.get(&place.number) == Some(&md5.to_string().as_str());
            if is_held {
                self.tally.skipped(place.span.size);
            } else {
                self.tally.lacks(place.span.offset);
                missing.push((place, md5));
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let request = SignPartsRequest {
            upload_id: upload_id.to_owned(),
            parts: missing
                .iter()
                .map(|(place, md5)| PartRef {
                    part: place.number,
                    file_id: md5.to_string(),
                })
                .collect(),
        };
        let signed = self.insist(async || Ok(self.signing().sign_parts(request.clone()).await?));
        let steps = signed.await?.into_inner().steps;
        if steps.len() != missing.len() {
            return Err(ClientError::protocol("not as many steps as parts"));
        }
        let signed = missing.into_iter().zip(steps);
        let signed = signed.map(|((place, md5), step)| SignedPart {
            place,
            md5,
            signature: step.signature.unwrap_or_default(),
        });
        Ok(signed.collect())
    }

    /// Sends one part until the store has it; each further try has a fresh signature.
    async fn send_part(&self, upload_id: &str, part: SignedPart) -> Result<(), ClientError> {
        let Place { number, span } = part.place;
        sleep_until(self.tally.turn(span.size)).await;
        let mut signature = part.signature;
        let mut tries = self.tries();
        loop {
            let Err(failure) = self.send(&signature, span).await else {
                return Ok(());
            };
            tries.wait(&self.tally, failure).await?;
            let request = SignPartRequest {
                upload_id: upload_id.to_owned(),
                part: number,
                file_id: part.md5.to_string(),
            };
            let signed =
                self.insist(async || Ok(self.signing().sign_part(request.clone()).await?));
            signature = signed.await?.into_inner().signature.unwrap_or_default();
        }
    }
}

/// The parts of a file; all but the last have the same size.
fn plan(size: u64, part_size: u64) -> impl Iterator<Item = Place> {
    (1..).map_while(move |number| {
        let offset = u64::try_from(number - 1).ok()? * part_size;
        let span = Span {
            offset,
            size: part_size.min(size.checked_sub(offset)?),
        };
        (span.size > 0).then_some(Place { number, span })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_file_cover_it() {
        let sizes = |size| -> Vec<_> { plan(size, 5).map(|place| place.span.size).collect() };
        assert_eq!(sizes(10), [5, 5]);
        assert_eq!(sizes(11), [5, 5, 1]);
        assert_eq!(sizes(4), [4]);
        assert_eq!(sizes(0), [0; 0]);
        let last = plan(11, 5).last().unwrap();
        assert_eq!((last.number, last.span.offset), (3, 10));
    }
}
