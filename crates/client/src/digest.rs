//! MD5 digests in the form of the API.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::Digest;

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

/// The MD5 of bytes that arrive one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher(md5::Md5);

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

// === impl Hasher ===

impl Hasher {
    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The MD5 of all bytes so far.
    pub(crate) fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }
}
