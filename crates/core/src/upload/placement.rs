//! How an object is stored: its own metadata, tags, headers, storage class and encryption.
//!
//! Callers ask for it when they create an upload, storages have defaults, and the record keeps both together. The rules
//! are what every store accepts: the common part of S3 and Azure.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::stored::metadata_keys;
use crate::error::{All, Error, Kind, Reason, Result};

/// The largest number of metadata entries.
pub const MAX_METADATA: usize = 16;

/// The largest size of all keys and values of the metadata, in bytes. S3 takes 2 KB, of which the gateway needs some.
pub const MAX_METADATA_SIZE: usize = 1024;

/// The longest key of a metadata entry, in bytes.
const MAX_METADATA_KEY: usize = 63;

/// The largest number of object tags, of S3 and of Azure.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>
/// <https://learn.microsoft.com/rest/api/storageservices/set-blob-tags>
pub const MAX_OBJECT_TAGS: usize = 10;

/// The longest key and the longest value of an object tag, in bytes.
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

/// The longest value of a header, in bytes.
const MAX_HEADER: usize = 255;

/// The longest id of a KMS key, in bytes: AWS documents 2,048 for names of keys, and no key has such a long one.
const MAX_KEY_ID: usize = 1024;

/// How an object is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Metadata of the caller. Keys match `[a-z][a-z0-9]{0,62}`, and are not the gateway's own.
    #[serde(rename = "m", skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Tags of the object in the store. The tags of the upload are other ones.
    #[serde(rename = "t", skip_serializing_if = "BTreeMap::is_empty")]
    pub object_tags: BTreeMap<String, String>,
    /// `Cache-Control`.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    #[serde(rename = "d", skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    #[serde(rename = "e", skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The storage class (S3) or access tier (Azure).
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// How the store encrypts the object. `None`: as the bucket or the account is configured.
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// How a store encrypts an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// With a key of S3 (SSE-S3).
    SseS3,
    /// With a key in AWS KMS (SSE-KMS).
    SseKms {
        /// The id or the ARN of the key. `None`: the account's default key for S3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_id: Option<String>,
        /// Whether the bucket's own key is used, which saves requests to KMS.
        #[serde(default)]
        bucket_key: bool,
    },
    /// In this encryption scope (Azure).
    Scope(String),
}

/// Which parts of a [`Placement`] a store supports, besides metadata and headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Tags of objects.
    pub object_tags: bool,
    /// The storage classes or access tiers. Empty: there is only one.
    pub storage_classes: &'static [&'static str],
    /// [`Encryption::SseS3`] and [`Encryption::SseKms`].
    pub server_side_encryption: bool,
    /// [`Encryption::Scope`].
    pub encryption_scopes: bool,
}

// === impl Placement ===

impl Placement {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks counts, sizes and characters.
    ///
    /// # Errors
    /// `InvalidArgument` that names each invalid field, the key and the limit.
    pub fn check(&self) -> Result<()> {
        let headers = (
            check_header("cache_control", self.cache_control.as_deref()),
            check_header("content_disposition", self.content_disposition.as_deref()),
            check_encoding(self.content_encoding.as_deref()),
        );
        let class = self.storage_class.as_deref();
        let encryption = self.encryption.as_ref().map_or(Ok(()), Encryption::check);
        (
            (self.check_metadata(), self.check_tags()).all(),
            headers.all(),
            check_header("storage_class", class),
            encryption,
        )
            .all()
            .map(drop)
    }

    /// What this asks for, and otherwise `default`. Entries of both maps are kept; this one's precede.
    #[must_use]
    pub fn or(self, default: &Self) -> Self {
        let both = |own: BTreeMap<String, String>, default: &BTreeMap<String, String>| {
            default.clone().into_iter().chain(own).collect()
        };
        Self {
            metadata: both(self.metadata, &default.metadata),
            object_tags: both(self.object_tags, &default.object_tags),
            cache_control: self.cache_control.or_else(|| default.cache_control.clone()),
            content_disposition: self
                .content_disposition
                .or_else(|| default.content_disposition.clone()),
            content_encoding: self
                .content_encoding
                .or_else(|| default.content_encoding.clone()),
            storage_class: self.storage_class.or_else(|| default.storage_class.clone()),
            encryption: self.encryption.or_else(|| default.encryption.clone()),
        }
    }

    /// Checks that a store with these features can do it.
    ///
    /// # Errors
    /// `FailedPrecondition` with `NotSupported` that names the feature.
    pub fn check_supported(&self, features: &Features) -> Result<()> {
        if !self.object_tags.is_empty() && !features.object_tags {
            return Err(not_supported("object_tags", "tags of objects"));
        }
        if let Some(class) = &self.storage_class
            && !features.storage_classes.contains(&class.as_str())
        {
            let error = not_supported("storage_class", &format!("the storage class {class}"));
            return Err(error.with("restriction", features.storage_classes.join(",")));
        }
        match &self.encryption {
            Some(Encryption::SseS3 | Encryption::SseKms { .. })
                if !features.server_side_encryption =>
            {
                Err(not_supported("encryption", "server-side encryption"))
            }
            Some(Encryption::Scope(_)) if !features.encryption_scopes => {
                Err(not_supported("encryption", "encryption scopes"))
            }
            _ => Ok(()),
        }
    }

    /// The encryption scope, if it has one.
    pub fn encryption_scope(&self) -> Option<&str> {
        match &self.encryption {
            Some(Encryption::Scope(scope)) => Some(scope),
            _ => None,
        }
    }

    fn check_metadata(&self) -> Result<()> {
        const FIELD: &str = "metadata";
        if self.metadata.len() > MAX_METADATA {
            return Err(Error::invalid(
                FIELD,
                format!("at most {MAX_METADATA} entries"),
            ));
        }
        let sizes = self
            .metadata
            .iter()
            .map(|(key, text)| key.len() + text.len());
        if sizes.sum::<usize>() > MAX_METADATA_SIZE {
            let problem = format!("at most {MAX_METADATA_SIZE} bytes of keys and values together");
            return Err(Error::invalid(FIELD, problem));
        }
        for (key, text) in &self.metadata {
            check_metadata_key(key).map_err(|problem| Error::invalid(FIELD, problem))?;
            check_printable(text)
                .map_err(|why| Error::invalid(FIELD, format!("the value of `{key}` {why}")))?;
        }
        Ok(())
    }

    fn check_tags(&self) -> Result<()> {
        const FIELD: &str = "object_tags";
        if self.object_tags.len() > MAX_OBJECT_TAGS {
            return Err(Error::invalid(
                FIELD,
                format!("at most {MAX_OBJECT_TAGS} tags"),
            ));
        }
        let allowed = |text: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b" +-./:=_".contains(&byte);
            text.bytes().all(is_allowed)
        };
        for (key, value) in &self.object_tags {
            let shown = shown(key);
            let problem = if key.is_empty() || key.len() > MAX_TAG_KEY {
                format!("the key `{shown}` must have 1 to {MAX_TAG_KEY} bytes")
            } else if value.len() > MAX_TAG_VALUE {
                format!("the value of `{shown}` is longer than {MAX_TAG_VALUE} bytes")
            } else if !allowed(key) || !allowed(value) {
                format!("`{shown}` must have letters, digits, spaces and `+-./:=_` only")
            } else if key
                .get(..4)
                .is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
            {
                format!("the key `{shown}` is reserved for AWS")
            } else {
                continue;
            };
            return Err(Error::invalid(FIELD, problem));
        }
        Ok(())
    }
}

// === impl Encryption ===

impl Encryption {
    /// Whether an object that the store describes as `found` is encrypted as this demands. A store reports the ARN of a KMS
    /// key, which ends with its id.
    pub fn is_met_by(&self, found: Option<&Self>) -> bool {
        match (self, found) {
            (Self::SseKms { key_id: None, .. }, Some(Self::SseKms { .. })) => true,
            (
                Self::SseKms {
                    key_id: Some(id), ..
                },
                Some(Self::SseKms {
                    key_id: Some(found),
                    ..
                }),
            ) => {
                found == id
                    || found
                        .strip_suffix(id.as_str())
                        .is_some_and(|arn| arn.ends_with('/'))
            }
            (own, Some(found)) => own == found,
            (_, None) => false,
        }
    }

    /// Whether a store can prove by the description of an object that it is met: an alias of a KMS key is not reported.
    pub fn can_be_proven(&self) -> bool {
        match self {
            Self::SseKms {
                key_id: Some(id), ..
            } => !id.contains("alias/"),
            _ => true,
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::SseS3 | Self::SseKms { key_id: None, .. } => Ok(()),
            Self::SseKms {
                key_id: Some(id), ..
            } => {
                let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte);
                match (1..=MAX_KEY_ID).contains(&id.len()) && id.bytes().all(is_allowed) {
                    true => Ok(()),
                    false => Err(Error::invalid(
                        "encryption",
                        format!(
                            "the id of a KMS key has 1 to {MAX_KEY_ID} letters, digits and `:/_-`"
                        ),
                    )),
                }
            }
            Self::Scope(scope) => {
                let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                match (3..=63).contains(&scope.len()) && scope.bytes().all(is_allowed) {
                    true => Ok(()),
                    false => Err(Error::invalid(
                        "encryption",
                        "the name of an encryption scope has 3 to 63 letters, digits and `-`",
                    )),
                }
            }
        }
    }
}

// === impl Features ===

impl Features {
    /// None of them.
    pub const NONE: Self = Self {
        object_tags: false,
        storage_classes: &[],
        server_side_encryption: false,
        encryption_scopes: false,
    };
}

/// `[a-z][a-z0-9]{0,62}`: Azure takes no hyphens, proxies drop names with underscores, and stores compare without case.
fn check_metadata_key(key: &str) -> Result<(), String> {
    let shown = shown(key);
    if key.len() > MAX_METADATA_KEY {
        return Err(format!(
            "the key `{shown}` is longer than {MAX_METADATA_KEY} bytes"
        ));
    }
    let starts = key.starts_with(|first: char| first.is_ascii_lowercase());
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !starts || !key.bytes().all(is_allowed) {
        return Err(format!(
            "the key `{shown}` must be lower-case letters and digits, and start with a letter"
        ));
    }
    match metadata_keys::OWN.contains(&key) {
        true => Err(format!("the key `{shown}` is the gateway's own")),
        false => Ok(()),
    }
}

/// Printable ASCII that a header keeps as it is.
fn check_printable(text: &str) -> Result<(), &'static str> {
    let is_printable = |byte: u8| matches!(byte, b' '..=b'~');
    if text.is_empty() {
        return Err("must not be empty");
    }
    if !text.bytes().all(is_printable) {
        return Err("must be printable ASCII");
    }
    match text.trim_ascii() == text {
        true => Ok(()),
        false => Err("must not start or end with a space"),
    }
}

fn check_header(field: &'static str, value: Option<&str>) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    if value.len() > MAX_HEADER {
        let problem = format!("longer than {MAX_HEADER} bytes");
        return Err(Error::invalid(field, problem));
    }
    check_printable(value).map_err(|why| Error::invalid(field, why))
}

/// Content codings, without the one that means a signed transfer on S3.
fn check_encoding(value: Option<&str>) -> Result<()> {
    const FIELD: &str = "content_encoding";
    check_header(FIELD, value)?;
    match value.is_some_and(|value| value.to_ascii_lowercase().contains("aws-chunked")) {
        true => Err(Error::invalid(
            FIELD,
            "aws-chunked is not a coding of files",
        )),
        false => Ok(()),
    }
}

/// The beginning of a key of a caller, for a message.
fn shown(key: &str) -> Cow<'_, str> {
    match key.char_indices().nth(MAX_METADATA_KEY) {
        Some((end, _)) => format!("{}…", &key[..end]).into(),
        None => key.into(),
    }
}

fn not_supported(feature: &'static str, what: &str) -> Error {
    let message = format!("the storage does not support {what}");
    Error::new(Kind::FailedPrecondition, Reason::NotSupported, message).with("feature", feature)
}

#[cfg(test)]
mod tests;
