//! Parts that streams record, and claims of clients.

use async_trait::async_trait;
use upload_gateway_core::{
    error::{Error, Result},
    state::{PartRecord, PartStore, Times},
    upload::{Claim, Claims, Owner, Part, Parts, Upload, UploadId, WriterTag},
};

use super::{
    Redis,
    record::{self, Summary},
    scripts::SCRIPTS,
    times_texts,
};
use crate::state::slot;

/// How many claims one script records: they take 1 to 2 ms, during which Redis serves no other client. A report
/// usually has fewer, and a signing call has at most 100.
const CLAIMS_AT_ONCE: usize = 1_000;

#[async_trait]
impl PartStore for Redis {
    async fn record_parts(
        &self,
        id: &UploadId,
        writer: WriterTag,
        version: u64,
        parts: &[Part],
        times: Times,
    ) -> Result<PartRecord> {
        let mut arguments: Vec<Vec<u8>> = vec![
            record::writer_text(Some(writer)).into(),
            version.to_string().into(),
        ];
        arguments.extend(times_texts(times).map(Vec::from));
        for part in parts {
            arguments.extend(record::part_arguments(part)?);
        }
        let (outcome, detail): (String, String) =
            self.invoke(&SCRIPTS.record_parts, id, &arguments).await?;
        match outcome.as_str() {
            "recorded" => detail
                .parse()
                .map(|committed| PartRecord::Recorded { committed })
                .map_err(|cause| {
                    Error::internal("record_parts.lua returned an invalid count", cause)
                }),
            "taken_over" => Ok(PartRecord::TakenOver),
            "not_open" => record::parse_phase(&detail).map(PartRecord::NotOpen),
            "missing" => Ok(PartRecord::Missing),
            _ => Err(Error::fault("record_parts.lua returned an invalid answer")),
        }
    }

    async fn committed_parts(
        &self,
        id: &UploadId,
        after: u32,
        limit: u32,
    ) -> Result<Option<Vec<Part>>> {
        self.read_committed(id, after, limit).await
    }

    async fn claim(
        &self,
        id: &UploadId,
        owner: &Owner,
        claims: &[Claim],
        times: Times,
    ) -> Result<Option<Upload>> {
        let claims: Claims = claims.iter().copied().collect();
        let claims: Vec<Claim> = claims.iter().collect();
        // Each step checks all numbers against the plan, so that no claim is recorded if one number is outside of it.
        let lowest = claims.first().map_or(1, |claim| claim.number);
        let highest = claims.last().map_or(0, |claim| claim.number);
        let key = self.record_key(id);
        let mut summary: Option<Upload> = None;
        for step in steps(&claims) {
            let mut arguments: Vec<Vec<u8>> = vec![
                record::owner_text(owner).into(),
                lowest.to_string().into(),
                highest.to_string().into(),
            ];
            arguments.extend(times_texts(times).map(Vec::from));
            for claim in step {
                arguments.push(claim.number.to_string().into());
                arguments.push(slot::write_claim(claim).into());
            }
            let now: Summary = self.invoke(&SCRIPTS.claim, id, &arguments).await?;
            let numbers = step.iter().map(|claim| claim.number);
            let Some(now) = record::read_summary(&key, &now, numbers)? else {
                return Ok(None);
            };
            // Parts of all steps, the header of the last one.
            summary = Some(match summary {
                Some(before) => joined(before, now),
                None => now,
            });
        }
        Ok(summary)
    }
}

/// Splits claims into steps of one script each; without claims there is one empty step.
fn steps(claims: &[Claim]) -> impl Iterator<Item = &[Claim]> {
    let (first, rest) = claims.split_at(claims.len().min(CLAIMS_AT_ONCE));
    std::iter::once(first).chain(rest.chunks(CLAIMS_AT_ONCE))
}

/// The later one of two summaries, with the parts of both.
fn joined(before: Upload, now: Upload) -> Upload {
    let (committed, rewritten) = (now.parts.committed(), now.parts.rewritten());
    let parts = before.parts.iter().chain(now.parts.iter()).cloned();
    Upload {
        parts: Parts::summary(committed, parts).with_rewritten(rewritten),
        ..now
    }
}
