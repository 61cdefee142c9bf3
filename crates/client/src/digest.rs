//! MD5 digests, as the API writes them.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::Digest;

/// An MD5 digest. Its text is base64, as `file_id` and `object.md5` have it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5(pub [u8; 16]);

/// The MD5 of a file that is read from its start to its end.
#[derive(Debug, Clone, Default)]
pub(super) struct FileDigest(md5::Md5);

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

// === impl FileDigest ===

impl FileDigest {
    /// Adds the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub(super) fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }
}
