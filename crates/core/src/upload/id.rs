//! Names of uploads, and how the same create finds the same upload.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Owner;

const TAG_LENGTH: usize = 16;
const RANDOM_LENGTH: usize = 32;

/// An upload's name, `uploads-<tag>-<random>`: 16 and 32 lower-case hexadecimal digits.
///
/// The tag is what a record and its fingerprint have in common, so that a clustered state store keeps both in one
/// slot; the random part (128 bits) makes the name unguessable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UploadId(String);

/// The text names no upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an upload id")]
pub struct InvalidUploadId;

/// The deployment's secret: keys the fingerprints, so that ids tell nothing of what they were made from.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// What makes two creates the same one.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Tenant and caller.
    pub owner: &'a Owner,
    /// The storage it goes to.
    pub storage_id: &'a str,
    /// The file's name as given.
    pub file_name: &'a str,
    /// Its size in bytes.
    pub file_size: u64,
    /// Its digest or resume key.
    pub file_id: &'a str,
}

/// The keyed hash of an [`Identity`]: 64 hexadecimal digits, the first 16 of which are the upload id's tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(String);

// === impl UploadId ===

impl UploadId {
    /// What every name begins with.
    pub const PREFIX: &str = "uploads-";

    /// A fresh name; with a fingerprint it shares that one's tag.
    pub fn generate(fingerprint: Option<&Fingerprint>) -> Self {
        let tag = fingerprint.map_or_else(
            || format!("{:0TAG_LENGTH$x}", rand::random::<u64>()),
            |known| known.tag().to_owned(),
        );
        Self(format!(
            "{}{tag}-{:0RANDOM_LENGTH$x}",
            Self::PREFIX,
            rand::random::<u128>()
        ))
    }

    /// The part that it shares with its fingerprint.
    pub fn tag(&self) -> &str {
        &self.0[Self::PREFIX.len()..Self::PREFIX.len() + TAG_LENGTH]
    }

    /// The whole name.
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
    /// A fresh secret.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The secret of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Another secret, for one purpose, which tells nothing of this one.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac = self.keyed();
        // No fingerprint begins so: its first field is shorter.
        mac.update(&u64::MAX.to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn keyed(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes a key of any length")
    }

    /// Its bytes, for the state store that keeps it.
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
            // The length before each field keeps ("ab", "c") and ("a", "bc") apart.
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
    /// The tag that ids of this fingerprint share.
    pub fn tag(&self) -> &str {
        self.0.get(..TAG_LENGTH).unwrap_or(&self.0)
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_shares_the_tag_of_its_fingerprint_and_survives_as_text() {
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
    fn fields_do_not_run_into_each_other() {
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
    fn text_that_is_no_id_is_refused() {
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
