//! CRC-64/NVME on S3: `x-amz-checksum-crc64nvme`, of whole objects (`FULL_OBJECT`).

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType};
use upload_gateway_core::upload::{Crc64Nvme, Integrity};

/// The digest of the parts of a session that the store describes like this: CRC-64s only if it combines them.
pub(super) fn integrity(
    algorithm: Option<&ChecksumAlgorithm>,
    kind: Option<&ChecksumType>,
) -> Integrity {
    match (algorithm, kind) {
        (Some(ChecksumAlgorithm::Crc64Nvme), Some(ChecksumType::FullObject)) => {
            Integrity::Crc64Nvme
        }
        _ => Integrity::Md5,
    }
}

/// The CRC-64 in an answer, unless it is one of the parts' CRC-64s.
pub(super) fn whole(crc64: Option<&str>, kind: Option<&ChecksumType>) -> Option<Crc64Nvme> {
    let is_whole = kind.is_none_or(|kind| *kind == ChecksumType::FullObject);
    crc64?.parse().ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_with_combined_crc64s_gets_them() {
        use {ChecksumAlgorithm as Algorithm, ChecksumType as Type};
        for (algorithm, kind, expected) in [
            (
                Some(Algorithm::Crc64Nvme),
                Some(Type::FullObject),
                Integrity::Crc64Nvme,
            ),
            (
                Some(Algorithm::Crc64Nvme),
                Some(Type::Composite),
                Integrity::Md5,
            ),
            (Some(Algorithm::Crc64Nvme), None, Integrity::Md5),
            (
                Some(Algorithm::Crc32),
                Some(Type::FullObject),
                Integrity::Md5,
            ),
            (
                Some(Algorithm::from("null")),
                Some(Type::from("null")),
                Integrity::Md5,
            ),
            (None, None, Integrity::Md5),
        ] {
            assert_eq!(integrity(algorithm.as_ref(), kind.as_ref()), expected);
        }
    }

    #[test]
    fn a_crc64_of_parts_is_not_that_of_the_object() {
        let text = Some("ZZYyy35L4mE=");
        let known = Some(Crc64Nvme::of(b"Hello World"));
        assert_eq!(whole(text, None), known);
        assert_eq!(whole(text, Some(&ChecksumType::FullObject)), known);
        assert_eq!(whole(text, Some(&ChecksumType::Composite)), None);
        assert_eq!(whole(Some("x"), None), None);
        assert_eq!(whole(None, None), None);
    }
}
