//! Invalid and nearly valid rows.

use upload_gateway_core::upload::{Claims, Part, Parts, Upload};

use super::record::Record;

/// The record of a row and the rows of its parts.
pub fn record(bytes: &[u8]) -> Option<Upload> {
    let (record, parts): (Record, Vec<Part>) = serde_json::from_slice(bytes).ok()?;
    let json = serde_json::to_string(&record).expect("what was read can be written");
    let again: Record = serde_json::from_str(&json).expect("what was written can be read");
    let _ = record.due_at();
    let parts: Parts = parts.into_iter().collect();
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
