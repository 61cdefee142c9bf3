//! How digests and sizes are written in S3's responses.

use s3s::{S3Error, S3Result};

/// Lower-case hexadecimal, as in ETags.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number of bytes as responses carry it.
///
/// # Errors
/// An internal error if the size exceeds `i64::MAX`.
pub(super) fn length(size: u64) -> S3Result<i64> {
    i64::try_from(size).map_err(S3Error::internal_error)
}
