//! Invalid and nearly valid hashes.

use upload_gateway_core::upload::Upload;

use super::record::{Fields, all_fields, parse, parse_summary};

/// The record of a hash, whole and as a summary.
pub fn records(bytes: &[u8]) -> Vec<Upload> {
    let Ok(fields) = serde_json::from_slice::<Fields>(bytes) else {
        return Vec::new();
    };
    let whole = parse(&fields).ok().flatten();
    if let Some(upload) = &whole {
        let written = all_fields(upload).expect("what was read can be written");
        let again = parse(&written.into_iter().collect()).ok().flatten();
        assert_eq!(again.as_ref(), Some(upload));
    }
    let summary = parse_summary(&fields).ok().flatten();
    whole.into_iter().chain(summary).collect()
}
