//! Upload ids, and the fingerprints by which an identical create finds the same upload.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Owner;

const TAG_LENGTH: usize = 16;
const RANDOM_LENGTH: usize = 32;

/// The id of an upload: `uploads-<tag>-<random>`, with 16 and 32 lower-case hexadecimal digits.
///
/// The record and the index entry of its fingerprint share the tag, so that a clustered state store keeps both in one
/// slot. The random part (128 bits) cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UploadId(String);

/// The text is not an upload id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an upload id")]
pub struct InvalidUploadId;

/// The secret of the deployment. It keys the fingerprints, so that an id reveals nothing about its file.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// What two identical creates have in common.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The tenant and the caller.
    pub owner: &'a Owner,
    /// The storage that the file goes to.
    pub storage_id: &'a str,
    /// The name of the file, as given.
    pub file_name: &'a str,
    /// The size of the file in bytes.
    pub file_size: u64,
    /// The MD5 of the file, or the client's resume key.
    pub file_id: &'a str,
}

/// The keyed hash of an [`Identity`]: 64 hexadecimal digits. The first 16 are the tag of the upload id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(String);

// === impl UploadId ===

impl UploadId {
    /// The start of every id.
    pub const PREFIX: &str = "uploads-";

    /// How long an id is, in bytes.
    pub const LENGTH: usize = Self::PREFIX.len() + TAG_LENGTH + 1 + RANDOM_LENGTH;

    /// How long an id is as [bytes](Self::to_bytes).
    pub const BYTES: usize = (TAG_LENGTH + RANDOM_LENGTH) / 2;

    /// A new id. With a fingerprint, it has the fingerprint's tag.
    pub fn generate(fingerprint: Option<&Fingerprint>) -> Self {
        let tag = fingerprint.map_or_else(
            || format!("{:0TAG_LENGTH$x}", rand::random::<u64>()),
            |known| known.tag().to_owned(),
        );
        Self::joined(&tag, rand::random())
    }

    /// Its digits as bytes, in the order of ids.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let random = &self.0[Self::LENGTH - RANDOM_LENGTH..];
        // Both have only digits, as `from_str` checks.
        let tag = u64::from_str_radix(self.tag(), 16).unwrap_or_default();
        let random = u128::from_str_radix(random, 16).unwrap_or_default();
        let mut bytes = [0; Self::BYTES];
        bytes[..TAG_LENGTH / 2].copy_from_slice(&tag.to_be_bytes());
        bytes[TAG_LENGTH / 2..].copy_from_slice(&random.to_be_bytes());
        bytes
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (tag, random) = bytes.split_at(TAG_LENGTH / 2);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u128::from(*byte))
        };
        Self::joined(&format!("{:0TAG_LENGTH$x}", number(tag)), number(random))
    }

    fn joined(tag: &str, random: u128) -> Self {
        Self(format!("{}{tag}-{random:0RANDOM_LENGTH$x}", Self::PREFIX))
    }

    /// The tag, which it shares with its fingerprint.
    pub fn tag(&self) -> &str {
        &self.0[Self::PREFIX.len()..Self::PREFIX.len() + TAG_LENGTH]
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for UploadId {
    type Err = InvalidUploadId;

    fn from_str(text: &str) -> Result<Self, InvalidUploadId> {
        let (tag, random) = text
            .strip_prefix(Self::PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .ok_or(InvalidUploadId)?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let digits = |text: &str, length| text.len() == length && text.bytes().all(is_digit);
        if !digits(tag, TAG_LENGTH) || !digits(random, RANDOM_LENGTH) {
            return Err(InvalidUploadId);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for UploadId {
    type Error = InvalidUploadId;

    fn try_from(text: String) -> Result<Self, InvalidUploadId> {
        text.parse()
    }
}

impl From<UploadId> for String {
    fn from(id: UploadId) -> Self {
        id.0
    }
}

// === impl Secret ===

impl Secret {
    /// A new random secret.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The secret with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A secret for one purpose that is derived from this one and reveals nothing about it.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac = self.keyed();
        // No fingerprint starts with this: its first field is shorter.
        mac.update(&u64::MAX.to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn keyed(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes a key of any length")
    }

    /// The bytes, for the state store that keeps them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret([redacted])")
    }
}

// === impl Identity ===

impl Identity<'_> {
    /// Hashes the identity with the deployment's secret.
    pub fn fingerprint(&self, secret: &Secret) -> Fingerprint {
        let mut mac = secret.keyed();
        let size = self.file_size.to_string();
        let fields = [
            &self.owner.tenant,
            &self.owner.subject,
            self.storage_id,
            self.file_name,
            size.as_str(),
            self.file_id,
        ];
        for field in fields {
            // The length before each field distinguishes ("ab", "c") from ("a", "bc").
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field.as_bytes());
        }
        Fingerprint(
            mac.finalize()
                .into_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    /// The tag that ids with this fingerprint share.
    pub fn tag(&self) -> &str {
        self.0.get(..TAG_LENGTH).unwrap_or(&self.0)
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_tag_of_its_fingerprint_and_can_be_parsed() {
        let owner = Owner::default();
        let identity = Identity {
            owner: &owner,
            storage_id: "s",
            file_name: "a.bin",
            file_size: 7,
            file_id: "x",
        };
        let fingerprint = identity.fingerprint(&Secret::new([1; 32]));
        let id = UploadId::generate(Some(&fingerprint));
        assert_eq!(id.tag(), fingerprint.tag());
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_ne!(UploadId::generate(Some(&fingerprint)), id);
        assert_ne!(identity.fingerprint(&Secret::new([2; 32])), fingerprint);
    }

    #[test]
    fn equal_concatenations_of_fields_have_different_fingerprints() {
        let owner = Owner::default();
        let secret = Secret::new([1; 32]);
        let one = Identity {
            owner: &owner,
            storage_id: "ab",
            file_name: "c",
            file_size: 7,
            file_id: "x",
        };
        let other = Identity {
            storage_id: "a",
            file_name: "bc",
            ..one
        };
        assert_ne!(one.fingerprint(&secret), other.fingerprint(&secret));
    }

    #[test]
    fn an_invalid_id_is_rejected() {
        for text in [
            "",
            "uploads-",
            "uploads-1-2",
            "uploads-0123456789abcdef-../../../../../../../../../../ab",
            "uploads-0123456789ABCDEF-0123456789abcdef0123456789abcdef",
            "{x}",
        ] {
            assert_eq!(text.parse::<UploadId>(), Err(InvalidUploadId), "{text}");
        }
    }
}
