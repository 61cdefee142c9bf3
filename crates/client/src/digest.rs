//! Digests in the form of the API.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::Digest;

use crate::proto::v1::{FileDigest, Object};

/// An MD5 digest. Its text is base64, like `file_id` and `object.md5`.
///
/// # Examples
/// ```
/// use upload_gateway_client::Md5;
///
/// assert_eq!(Md5::of(b"hello").to_string(), "XUFAKrxLKna5cZ2REBfFkg==");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5(pub [u8; 16]);

/// A CRC-64/NVME, the checksum that S3 computes over whole objects. Its text is that of S3: base64 of the eight bytes, the most
/// significant one first.
///
/// # Examples
/// ```
/// use upload_gateway_client::Crc64Nvme;
///
/// assert_eq!(Crc64Nvme::of(b"Hello World").to_string(), "ZZYyy35L4mE=");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crc64Nvme(pub u64);

/// The digests of a file, as far as they were computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) md5: Option<Md5>,
    pub(crate) crc64nvme: Option<Crc64Nvme>,
}

/// The MD5 of bytes that arrive one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Md5Hasher(md5::Md5);

/// The digests of bytes that arrive one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher {
    md5: Option<Md5Hasher>,
    crc64nvme: Option<Crc64Nvme>,
}

// === impl Md5 ===

impl Md5 {
    /// The MD5 of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(md5::Md5::digest(bytes).into())
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Md5({self})")
    }
}

// === impl Crc64Nvme ===

impl Crc64Nvme {
    /// The checksum of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(0).extend(bytes)
    }

    /// The checksum of the bytes so far, followed by `bytes`.
    pub(crate) fn extend(self, bytes: &[u8]) -> Self {
        // The state between two bytes is the checksum without the final XOR. To combine two checksums takes as long as to compute
        // that of a megabyte.
        let mut crc = Crc::new_with_init_state(CrcAlgorithm::Crc64Nvme, !self.0);
        crc.update(bytes);
        Self(crc.finalize())
    }
}

impl fmt::Display for Crc64Nvme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Crc64Nvme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crc64Nvme({self})")
    }
}

// === impl Digests ===

impl From<(Md5, Crc64Nvme)> for Digests {
    fn from((md5, crc64nvme): (Md5, Crc64Nvme)) -> Self {
        Self {
            md5: Some(md5),
            crc64nvme: Some(crc64nvme),
        }
    }
}

// === impl Md5Hasher ===

impl Md5Hasher {
    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The MD5 of all bytes so far.
    pub(crate) fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }
}

// === impl Digests ===

impl Digests {
    /// Those of them that the gateway knows of the object, too.
    pub(crate) fn known_of(self, object: Option<&Object>) -> Self {
        Self {
            md5: self
                .md5
                .filter(|_| object.is_some_and(|object| !object.md5.is_empty())),
            crc64nvme: self
                .crc64nvme
                .filter(|_| object.is_some_and(|object| object.crc64nvme.is_some())),
        }
    }

    /// The name of a digest that differs from one of the API, as far as both are known.
    pub(crate) fn other_than(&self, md5: &str, crc64nvme: Option<u64>) -> Option<&'static str> {
        let is_other_md5 = |own: Md5| !md5.is_empty() && own.to_string() != md5;
        let is_other_crc64 = |own: Crc64Nvme| crc64nvme.is_some_and(|other| other != own.0);
        if self.md5.is_some_and(is_other_md5) {
            return Some("MD5");
        }
        let is_other = self.crc64nvme.is_some_and(is_other_crc64);
        is_other.then_some("CRC64NVME")
    }
}

// === impl Hasher ===

impl Hasher {
    /// Of both, until it is known which one is compared.
    pub(crate) fn both() -> Self {
        Self {
            md5: Some(Md5Hasher::default()),
            crc64nvme: Some(Crc64Nvme(0)),
        }
    }

    /// Of those with which the bytes of this object can be compared.
    pub(crate) fn of_object(object: &Object) -> Self {
        let mut hasher = Self::both();
        match (object.md5.is_empty(), object.crc64nvme) {
            (true, Some(_)) => hasher.md5 = None,
            _ => hasher.crc64nvme = None,
        }
        hasher
    }

    /// Drops those that the gateway does not compute.
    pub(crate) fn keep(&mut self, computed: FileDigest) {
        match computed {
            // A gateway that does not know the field computes the MD5.
            FileDigest::Unspecified | FileDigest::Auto | FileDigest::Md5 => self.crc64nvme = None,
            FileDigest::Crc64nvme => self.md5 = None,
            FileDigest::None => *self = Self::default(),
        }
    }

    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(crc64) = &mut self.crc64nvme {
            *crc64 = crc64.extend(bytes);
        }
    }

    /// The digests of all bytes so far.
    pub(crate) fn finish(self) -> Digests {
        Digests {
            md5: self.md5.map(Md5Hasher::finish),
            crc64nvme: self.crc64nvme,
        }
    }
}
