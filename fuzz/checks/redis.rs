//! Invalid and nearly valid hashes.

use upload_gateway_core::upload::Upload;

use super::record::{Fields, all_fields, parse, parse_summary};

/// The record of a hash, whole and as a summary.
pub fn records(bytes: &[u8]) -> Vec<Upload> {
    let Ok(fields) = serde_json::from_slice::<Fields>(bytes) else {
        return Vec::new();
    };
    let whole = parse("key", &fields).ok().flatten();
    if let Some(upload) = &whole {
        let written = all_fields(upload).expect("what was read can be written");
        let again = parse("key", &written.into_iter().collect()).ok().flatten();
        assert_eq!(again.as_ref(), Some(upload));
    }
    let summary = parse_summary("key", &fields).ok().flatten();
    whole.into_iter().chain(summary).collect()
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
