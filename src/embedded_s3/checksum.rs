//! How requests and responses name CRC64NVME, the only checksum that is verified. Others are ignored.

use s3s::dto::{ChecksumAlgorithm, ChecksumMode, ChecksumType};
use s3s::{S3Result, TrailingHeaders, s3_error};
use upload_gateway_core::upload::Crc64Nvme;

/// The header, and the trailer, that names it.
const NAME: &str = "x-amz-checksum-crc64nvme";

/// What a request names as the CRC64NVME of its body: in a header, or in a trailer, which is there once the body was read.
#[derive(Debug, Default)]
pub(super) struct NamedCrc {
    pub(super) header: Option<String>,
    pub(super) trailers: Option<TrailingHeaders>,
}

/// Parses what a request names.
///
/// # Errors
/// `InvalidRequest` if it is not base64 of 8 bytes.
pub(super) fn parse(text: Option<String>) -> S3Result<Option<Crc64Nvme>> {
    let crc = text.map(|text| text.parse()).transpose();
    crc.map_err(|_| s3_error!(InvalidRequest, "the value of {NAME} is not valid"))
}

/// Compares what a request names with the CRC of the bytes.
///
/// # Errors
/// `BadDigest`
pub(super) fn compare(named: Option<Crc64Nvme>, computed: Crc64Nvme) -> S3Result<()> {
    if named.is_some_and(|named| named != computed) {
        return Err(s3_error!(
            BadDigest,
            "the CRC64NVME you specified did not match what was received"
        ));
    }
    Ok(())
}

/// Whether a new upload has a CRC64NVME of its parts and of the whole object.
///
/// # Errors
/// `InvalidRequest` for a type that CRC64NVME does not have, or that has no algorithm.
pub(super) fn of_upload(
    algorithm: Option<&ChecksumAlgorithm>,
    checksum_type: Option<&ChecksumType>,
) -> S3Result<bool> {
    let checksum_type = checksum_type.map(ChecksumType::as_str);
    match (algorithm.map(ChecksumAlgorithm::as_str), checksum_type) {
        (None, None) => Ok(false),
        (None, Some(_)) => Err(s3_error!(
            InvalidRequest,
            "x-amz-checksum-type needs x-amz-checksum-algorithm"
        )),
        (Some(ChecksumAlgorithm::CRC64NVME), None | Some(ChecksumType::FULL_OBJECT)) => Ok(true),
        (Some(ChecksumAlgorithm::CRC64NVME), Some(_)) => Err(s3_error!(
            InvalidRequest,
            "the checksum type of CRC64NVME is FULL_OBJECT"
        )),
        (Some(_), _) => Ok(false),
    }
}

/// How responses name the algorithm and the type of an upload.
pub(super) fn answered_upload(
    crc64nvme: bool,
) -> (Option<ChecksumAlgorithm>, Option<ChecksumType>) {
    let algorithm = ChecksumAlgorithm::from_static(ChecksumAlgorithm::CRC64NVME);
    (crc64nvme.then_some(algorithm), crc64nvme.then(full_object))
}

/// How responses name the CRC of an object.
pub(super) fn answered(crc: Option<Crc64Nvme>) -> (Option<String>, Option<ChecksumType>) {
    (crc.map(String::from), crc.map(|_| full_object()))
}

/// As [`answered`], for the responses that name it only if the request asks for it.
pub(super) fn answered_if(
    mode: Option<&ChecksumMode>,
    crc: Option<Crc64Nvme>,
) -> (Option<String>, Option<ChecksumType>) {
    let asked = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
    answered(crc.filter(|_| asked))
}

fn full_object() -> ChecksumType {
    ChecksumType::from_static(ChecksumType::FULL_OBJECT)
}

// === impl NamedCrc ===

impl NamedCrc {
    /// Compares it with the CRC of the body, which was read to its end. Returns whether the request names one.
    ///
    /// # Errors
    /// `InvalidRequest`, `BadDigest`
    pub(super) fn check(self, received: Crc64Nvme) -> S3Result<bool> {
        // A trailer that is not text is as invalid as one that is not base64.
        let in_trailer = self.trailers.and_then(|trailers| trailers.take());
        let in_trailer = in_trailer.and_then(|trailers| trailers.get(NAME).cloned());
        let in_trailer =
            in_trailer.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let named = parse(self.header.or(in_trailer))?;
        compare(named, received)?;
        Ok(named.is_some())
    }
}
