//! The digests that Azure names in its answers.

use upload_gateway_core::upload::{Crc64Nvme, Digests, Md5};

/// The digests in the headers `Content-MD5` and `x-ms-content-crc64`, as the SDK returns them.
pub(super) fn named(md5: Option<Vec<u8>>, crc64: Option<Vec<u8>>) -> Digests {
    let crc64: Option<[u8; 8]> = crc64.and_then(|bytes| bytes.try_into().ok());
    Digests {
        md5: md5.and_then(|bytes| bytes.try_into().ok()).map(Md5),
        crc64nvme: crc64.map(u64::from_le_bytes).map(Crc64Nvme),
    }
}
