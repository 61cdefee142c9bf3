//! The configuration of the S3 adapter: the keys of a `[[storage]]` table with `kind = "s3"`.

use std::{path::PathBuf, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    blobs::{COMMIT_TIMEOUT, OPERATION_TIMEOUT},
    error::{Error, Result},
    upload::{Features, MIB},
};

use super::{credentials::KeyPair, http::SdkClient, placement::FEATURES};
use crate::{
    blobs::secret_file::SecretFile,
    values::{Endpoint, Secret},
};

/// The largest object, in bytes, that every store of this kind accepts. AWS accepts larger ones.
const MAX_OBJECT_SIZE: u64 = 5 * 1024 * 1024 * MIB;

/// A bucket, and how to access it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The bucket, which must exist.
    pub bucket: String,
    /// Its region. Not set: the one that the SDK finds, otherwise `us-east-1`.
    pub region: Option<String>,
    /// The address of the store. Not set: AWS.
    pub endpoint: Option<Endpoint>,
    /// The address under which clients reach the store. It is used in signed URLs only. Not set: `endpoint`.
    pub public_endpoint: Option<Endpoint>,
    /// A PEM file with certificate authorities that are trusted in addition to those of the system. It is read again when its
    /// content changes.
    pub ca_file: Option<PathBuf>,
    /// What the store supports. Not set: `aws` if no endpoint is set, otherwise `compatible`.
    pub profile: Option<Profile>,
    /// The access key id. Not set: the SDK's default chain finds credentials (environment, profile, web identity,
    /// container, instance).
    pub access_key_id: Option<String>,
    /// A file that contains `access_key_id`.
    pub access_key_id_file: Option<PathBuf>,
    /// The secret of `access_key_id`.
    pub secret_access_key: Option<Secret>,
    /// A file that contains `secret_access_key`.
    pub secret_access_key_file: Option<PathBuf>,
    /// The canned ACL of new objects. Not set: none, which is right for buckets without ACLs.
    pub acl: Option<String>,
    /// How new objects are encrypted. Not set: as the bucket is configured.
    pub encryption: Option<SseMethod>,
    /// The id or the ARN of the key in KMS. Not set: the account's default key for S3.
    pub kms_key_id: Option<String>,
    /// Whether the bucket's own key is used with KMS, which saves requests to it.
    #[serde(default)]
    pub bucket_key: bool,
    /// What the store's entity tags (ETags) are.
    #[serde(default)]
    pub etags: Etags,
    /// What the store supports, besides metadata and headers of objects.
    #[serde(skip, default = "features")]
    pub features: Features,
    /// The largest object, in bytes.
    #[serde(skip, default = "max_object_size")]
    pub max_object_size: u64,
    /// The time limit of one request; for a request or a response with the bytes of a file, the longest time in which
    /// no byte moves.
    #[serde(skip, default = "operation_timeout")]
    pub operation_timeout: Duration,
    /// The time limit of the request that makes an object of its parts.
    #[serde(skip, default = "commit_timeout")]
    pub commit_timeout: Duration,
}

/// What a store that speaks S3's protocol supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// AWS: the bucket is in the host name.
    Aws,
    /// MinIO, Ceph and others: the bucket is in the path.
    Compatible,
    /// Like `Compatible`, but all parts except the last must have one size (Cloudflare R2).
    EqualParts,
}

/// What the entity tags (ETags) of a store are. A tag that equals the expected MD5 is proof in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Etags {
    /// MD5s of the bytes, unless the answer names encryption with KMS or a customer's key: a different one means damage.
    #[default]
    Md5,
    /// Anything: a different one means nothing.
    Opaque,
}

/// How a store encrypts objects, by the names of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SseMethod {
    /// With a key of S3.
    #[serde(rename = "aes256")]
    Aes256,
    /// With a key in AWS KMS.
    #[serde(rename = "aws:kms")]
    Kms,
}

const fn features() -> Features {
    FEATURES
}

const fn max_object_size() -> u64 {
    MAX_OBJECT_SIZE
}

const fn operation_timeout() -> Duration {
    OPERATION_TIMEOUT
}

const fn commit_timeout() -> Duration {
    COMMIT_TIMEOUT
}

// === impl S3Config ===

impl S3Config {
    /// The bucket of that name on AWS, with the SDK's default credentials.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            region: None,
            endpoint: None,
            public_endpoint: None,
            ca_file: None,
            profile: None,
            access_key_id: None,
            access_key_id_file: None,
            secret_access_key: None,
            secret_access_key_file: None,
            acl: None,
            encryption: None,
            kms_key_id: None,
            bucket_key: false,
            etags: Etags::default(),
            features: FEATURES,
            max_object_size: MAX_OBJECT_SIZE,
            operation_timeout: OPERATION_TIMEOUT,
            commit_timeout: COMMIT_TIMEOUT,
        }
    }

    /// What the store supports: as configured, otherwise as its endpoint suggests.
    pub fn profile(&self) -> Profile {
        self.profile.unwrap_or(match self.endpoint {
            Some(_) => Profile::Compatible,
            None => Profile::Aws,
        })
    }

    /// Credentials and region: only the configured ones, or those that the SDK's chain finds.
    pub(super) async fn load(&self, http_client: SdkClient) -> Result<SdkConfig> {
        let region = self.region.clone().map(Region::new);
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(id), Some(secret)) => {
                let credentials = KeyPair {
                    id: SecretFile::new(id.as_str().into(), self.access_key_id_file.clone()),
                    secret: SecretFile::new(secret.clone(), self.secret_access_key_file.clone()),
                };
                Ok(SdkConfig::builder()
                    .behavior_version(BehaviorVersion::latest())
                    .credentials_provider(SharedCredentialsProvider::new(credentials))
                    .region(region)
                    .build())
            }
            (None, None) => {
                let mut loader =
                    aws_config::defaults(BehaviorVersion::latest()).http_client(http_client);
                if let Some(region) = region {
                    loader = loader.region(region);
                }
                Ok(loader.load().await)
            }
            _ => Err(Error::fault(
                "access_key_id and secret_access_key must be set together",
            )),
        }
    }
}
