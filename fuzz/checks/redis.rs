//! Invalid and nearly valid records.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use upload_gateway_core::upload::Upload;

use super::record::{Fields, Receipts, Stored, read_summary};
use crate::state::slot::PART_SLOT;

/// The values of the keys of a record, as JSON.
#[derive(Deserialize)]
struct Keys {
    fields: Fields,
    parts: String,
    receipts: Receipts,
    claims: String,
}

/// The record of these keys, whole and as a summary.
pub fn records(bytes: &[u8]) -> Vec<Upload> {
    let Some(stored) = stored(bytes) else {
        return Vec::new();
    };
    let whole = stored.read("key").ok().flatten();
    if let Some(upload) = &whole {
        // A number that no store has is read, but not written.
        if let Ok(written) = Stored::new(upload) {
            assert_eq!(written.read("key").ok().flatten().as_ref(), Some(upload));
        }
    }
    let committed: usize = stored
        .fields
        .get("committed")
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    let last = stored
        .parts
        .chunks(PART_SLOT)
        .nth(committed.wrapping_sub(1));
    let summary = (
        stored.fields.clone(),
        last.unwrap_or_default().to_vec(),
        stored.receipts,
    );
    let summary = read_summary("key", &summary, []).ok().flatten();
    whole.into_iter().chain(summary).collect()
}

fn stored(bytes: &[u8]) -> Option<Stored> {
    let Keys {
        fields,
        parts,
        receipts,
        claims,
    } = serde_json::from_slice(bytes).ok()?;
    Some(Stored {
        fields,
        parts: STANDARD.decode(parts).ok()?,
        receipts,
        claims: STANDARD.decode(claims).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn every_seed_is_a_record() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/redis_record");
        for seed in fs::read_dir(seeds).unwrap() {
            let path = seed.unwrap().path();
            let records = super::records(&fs::read(&path).unwrap());
            assert_eq!(records.len(), 2, "{}", path.display());
        }
    }
}
