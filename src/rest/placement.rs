//! How an object is stored, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use upload_gateway_core::upload;
use utoipa::ToSchema;

/// How the object is stored. What is not set, the storage decides.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Placement {
    /// Metadata of the object: at most 16 entries, 1,024 bytes of keys and values. Keys are lower-case letters and digits,
    /// values printable ASCII.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// Tags of the object in the store, at most 10. The tags of the upload are other ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    object_tags: BTreeMap<String, String>,
    /// `Cache-Control` of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cache_control: Option<String>,
    /// `Content-Disposition` of the object. Downloads through the gateway have their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_disposition: Option<String>,
    /// `Content-Encoding` of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_encoding: Option<String>,
    /// The storage class (S3) or access tier (Azure).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    storage_class: Option<String>,
    /// How the store encrypts the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    encryption: Option<Encryption>,
}

/// How the store encrypts the object.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "method", rename_all = "snake_case")]
enum Encryption {
    /// With a key of S3.
    SseS3,
    /// With a key in AWS KMS.
    SseKms {
        /// The id or the ARN of the key. Not set: the account's default key for S3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        key_id: Option<String>,
        /// Whether the bucket's own key is used.
        #[serde(default)]
        bucket_key: bool,
    },
    /// In an encryption scope of Azure.
    Scope {
        /// Its name.
        scope: String,
    },
}

// === impl Placement ===

impl From<Placement> for upload::Placement {
    fn from(placement: Placement) -> Self {
        Self {
            metadata: placement.metadata,
            object_tags: placement.object_tags,
            cache_control: placement.cache_control,
            content_disposition: placement.content_disposition,
            content_encoding: placement.content_encoding,
            storage_class: placement.storage_class,
            encryption: placement.encryption.map(|encryption| match encryption {
                Encryption::SseS3 => upload::Encryption::SseS3,
                Encryption::SseKms { key_id, bucket_key } => {
                    upload::Encryption::SseKms { key_id, bucket_key }
                }
                Encryption::Scope { scope } => upload::Encryption::Scope(scope),
            }),
        }
    }
}

impl From<upload::Placement> for Placement {
    fn from(placement: upload::Placement) -> Self {
        Self {
            metadata: placement.metadata,
            object_tags: placement.object_tags,
            cache_control: placement.cache_control,
            content_disposition: placement.content_disposition,
            content_encoding: placement.content_encoding,
            storage_class: placement.storage_class,
            encryption: placement.encryption.map(|encryption| match encryption {
                upload::Encryption::SseS3 => Encryption::SseS3,
                upload::Encryption::SseKms { key_id, bucket_key } => {
                    Encryption::SseKms { key_id, bucket_key }
                }
                upload::Encryption::Scope(scope) => Encryption::Scope { scope },
            }),
        }
    }
}
