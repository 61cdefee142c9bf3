//! The content of a file or an object, as far as it is compared.

use sha2::{Digest, Sha256};
use upload_gateway_core::upload::Crc64Nvme;

/// The content of a file or an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) crc64nvme: Crc64Nvme,
    pub(super) sha256: String,
}

/// Computes a [`Content`] block by block.
#[derive(Debug, Default)]
pub(super) struct ContentDigest {
    size: u64,
    crc64nvme: Crc64Nvme,
    sha256: Sha256,
}

// === impl ContentDigest ===

impl ContentDigest {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc64nvme = self.crc64nvme.extend(bytes);
        self.sha256.update(bytes);
    }

    pub(super) fn finish(self) -> Content {
        let sha256 = self.sha256.finalize();
        Content {
            size: self.size,
            crc64nvme: self.crc64nvme,
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
