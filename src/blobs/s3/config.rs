//! What the adapter is told.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use serde::Deserialize;
use upload_gateway_core::{
    blobs::{OPERATION_TIMEOUT, SecretKey},
    error::{Error, Result},
    upload::MIB,
};
use url::Url;

/// What every store of this kind takes; AWS takes more, which is for the configuration to say.
const MAX_OBJECT_SIZE: u64 = 5 * 1024 * 1024 * MIB;

/// Where a bucket is, and how to speak to its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket, which must exist.
    pub bucket: String,
    /// Its region.
    pub region: Option<String>,
    /// The store's address; AWS when absent.
    pub endpoint: Option<Url>,
    /// The store's address as callers reach it, used in signed URLs only; `endpoint` when absent.
    pub public_endpoint: Option<Url>,
    /// The kind of store.
    pub profile: Profile,
    /// Without keys the SDK's default chain finds credentials: environment, profile, web identity, container, instance.
    pub access_key_id: Option<String>,
    /// Given together with `access_key_id`.
    pub secret_access_key: Option<SecretKey>,
    /// The canned ACL that objects get; none when absent, which buckets without ACLs want.
    pub acl: Option<String>,
    /// The largest object in bytes.
    pub max_object_size: u64,
    /// How long one request may take.
    pub operation_timeout: Duration,
}

/// In what the stores that speak S3's protocol differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// AWS: the bucket is in the host name.
    #[default]
    Aws,
    /// MinIO, Ceph and others: the bucket is in the path.
    Compatible,
    /// Like `Compatible`, and all parts but the last must have one size (Cloudflare R2).
    EqualParts,
}

// === impl S3Config ===

impl S3Config {
    /// That bucket on AWS, with the SDK's default credentials.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            region: None,
            endpoint: None,
            public_endpoint: None,
            profile: Profile::default(),
            access_key_id: None,
            secret_access_key: None,
            acl: None,
            max_object_size: MAX_OBJECT_SIZE,
            operation_timeout: OPERATION_TIMEOUT,
        }
    }

    /// Credentials and region: the configured ones alone, or what the SDK's chain finds.
    pub(super) async fn load(&self) -> Result<SdkConfig> {
        let region = self.region.clone().map(Region::new);
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(id), Some(secret)) => {
                let credentials = Credentials::from_keys(id, secret.expose(), None);
                Ok(SdkConfig::builder()
                    .behavior_version(BehaviorVersion::latest())
                    .credentials_provider(SharedCredentialsProvider::new(credentials))
                    .region(region)
                    .build())
            }
            (None, None) => {
                let mut loader = aws_config::defaults(BehaviorVersion::latest());
                if let Some(region) = region {
                    loader = loader.region(region);
                }
                Ok(loader.load().await)
            }
            _ => Err(Error::fault(
                "access_key_id and secret_access_key are given together or not at all",
            )),
        }
    }
}
