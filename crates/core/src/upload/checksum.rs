//! How a store proves that it received the bytes of one request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Crc64Nvme, Digests, Md5, Part, StoredPart, Upload};

/// Which digest the requests with bytes of an upload have. The store compares it with what it receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// The MD5 (S3 and Azure: `Content-MD5`).
    #[default]
    Md5,
    /// The CRC-64/NVME (S3: `x-amz-checksum-crc64nvme`, Azure: `x-ms-content-crc64`).
    Crc64Nvme,
}

/// The digest of the bytes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The MD5.
    Md5(Md5),
    /// The CRC-64/NVME.
    Crc64Nvme(Crc64Nvme),
}

// === impl Integrity ===

impl Integrity {
    /// Whether it is the MD5.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(super) fn is_md5(&self) -> bool {
        *self == Self::Md5
    }
}

// === impl Upload ===

impl Upload {
    /// Which digest the parts have that the gateway puts into the session. A release that did not know [`Upload::integrity`] may
    /// have dropped it: the parts still show it.
    pub fn session_integrity(&self) -> Integrity {
        let has_crc64 = |part: &Part| part.crc64nvme().is_some();
        match self.parts.iter_committed().any(has_crc64) {
            true => Integrity::Crc64Nvme,
            false => self.integrity,
        }
    }
}

/// The CRC-64s that a store lists, by the numbers of the parts.
pub fn listed_crc64s(listed: &[StoredPart]) -> BTreeMap<u32, Crc64Nvme> {
    let crc64s = listed.iter().map(|part| part.number.zip(part.crc64nvme));
    crc64s.flatten().collect()
}

// === impl Part ===

impl Part {
    /// The part as a commit in a session with CRC-64s names it: with the one that the store lists, if the record has none, as of a part
    /// that was put with its MD5.
    #[must_use]
    pub fn named(self, listed: Option<Crc64Nvme>) -> Self {
        let known = self.crc64nvme().or(listed).map(Checksum::Crc64Nvme);
        Self {
            checksum: known.or(self.checksum),
            ..self
        }
    }
}

// === impl Checksum ===

impl Checksum {
    /// The checksum of `bytes`.
    pub fn of(integrity: Integrity, bytes: &[u8]) -> Self {
        match integrity {
            Integrity::Md5 => Md5::of(bytes).into(),
            Integrity::Crc64Nvme => Crc64Nvme::of(bytes).into(),
        }
    }

    /// Which digest it is.
    pub fn integrity(self) -> Integrity {
        match self {
            Self::Md5(_) => Integrity::Md5,
            Self::Crc64Nvme(_) => Integrity::Crc64Nvme,
        }
    }

    /// The MD5, if it is one.
    pub fn md5(self) -> Option<Md5> {
        match self {
            Self::Md5(md5) => Some(md5),
            Self::Crc64Nvme(_) => None,
        }
    }

    /// The CRC-64/NVME, if it is one.
    pub fn crc64nvme(self) -> Option<Crc64Nvme> {
        match self {
            Self::Md5(_) => None,
            Self::Crc64Nvme(crc64) => Some(crc64),
        }
    }
}

impl From<Md5> for Checksum {
    fn from(md5: Md5) -> Self {
        Self::Md5(md5)
    }
}

impl From<Crc64Nvme> for Checksum {
    fn from(crc64: Crc64Nvme) -> Self {
        Self::Crc64Nvme(crc64)
    }
}

impl From<Checksum> for Digests {
    fn from(checksum: Checksum) -> Self {
        Self {
            md5: checksum.md5(),
            crc64nvme: checksum.crc64nvme(),
        }
    }
}
