//! Invalid and nearly valid rows.

use base64::{Engine, engine::general_purpose::STANDARD};
use upload_gateway_core::upload::{Claims, Parts, Upload};

use super::record::Record;
use crate::state::slot;

/// The record of a row, and the parts of slots from number 1. Receipts that a slot has no room for are `e1`.
pub fn record(bytes: &[u8]) -> Option<Upload> {
    let (record, slots): (Record, Vec<String>) = serde_json::from_slice(bytes).ok()?;
    let json = serde_json::to_string(&record).expect("what was read can be written");
    let again: Record = serde_json::from_str(&json).expect("what was written can be read");
    let _ = record.due_at();
    let mut parts = Parts::default();
    for (number, slot) in (1..).zip(slots) {
        let slot = STANDARD.decode(slot).ok()?;
        let receipt = || Some("e1".into());
        let read = slot::read_part(&record.written.plan, number, &slot, receipt, None).ok()?;
        if let Some(part) = read {
            parts.insert(part);
        }
    }
    let upload = record.with(parts.clone(), Claims::default());
    assert_eq!(again.with(parts, Claims::default()), upload);
    Some(upload)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn every_seed_is_a_record() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/redb_record");
        for seed in fs::read_dir(seeds).unwrap() {
            let path = seed.unwrap().path();
            let record = super::record(&fs::read(&path).unwrap());
            assert!(record.is_some(), "{}", path.display());
        }
    }
}
