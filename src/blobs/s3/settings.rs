//! What the process asks of the configuration of a bucket.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use upload_gateway_core::{
    blobs::BlobStore,
    error::Result,
    upload::{Encryption, Features, PART_SIZE},
};

use super::{
    Etags, S3Store,
    config::{S3Config, SseMethod},
    cors,
    inspection::Inspection,
};
use crate::{
    blobs::{CorsRule, Inspect, StoreSettings, check_authorities},
    values::{Endpoint, InvalidKey},
};

/// The names of the canned ACLs.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl>
const CANNED_ACLS: [&str; 7] = [
    "private",
    "public-read",
    "public-read-write",
    "aws-exec-read",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];

#[async_trait]
impl StoreSettings for S3Config {
    fn min_part_size(&self) -> u64 {
        PART_SIZE
    }

    fn endpoints(&self) -> Vec<(&'static str, &Endpoint)> {
        let endpoint = self.endpoint.as_ref();
        let public_endpoint = self.public_endpoint.as_ref();
        let endpoints = [
            endpoint.map(|endpoint| ("endpoint", endpoint)),
            public_endpoint.map(|endpoint| ("public_endpoint", endpoint)),
        ];
        endpoints.into_iter().flatten().collect()
    }

    fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    fn validate(&self) -> Result<(), InvalidKey> {
        check_authorities(self.ca_file())?;
        if self.bucket.is_empty() {
            return Err(InvalidKey::new("bucket", "must not be empty"));
        }
        if !self.acl.iter().all(|acl| CANNED_ACLS.contains(&&**acl)) {
            let problem = format!("must be one of {}", CANNED_ACLS.join(", "));
            return Err(InvalidKey::new("acl", problem));
        }
        if self.encryption != Some(SseMethod::Kms) {
            let key = match (&self.kms_key_id, self.bucket_key) {
                (Some(_), _) => Some("kms_key_id"),
                (None, true) => Some("bucket_key"),
                (None, false) => None,
            };
            if let Some(key) = key {
                return Err(InvalidKey::new(key, "needs encryption = \"aws:kms\""));
            }
        }
        match (&self.access_key_id, &self.secret_access_key) {
            (Some(_), None) => Err(InvalidKey::new(
                "secret_access_key",
                "is required with access_key_id; set neither to use the SDK's default chain",
            )),
            (None, Some(_)) => Err(InvalidKey::new(
                "access_key_id",
                "is required with secret_access_key; set neither to use the SDK's default chain",
            )),
            _ => Ok(()),
        }
    }

    fn advice(&self) -> &'static str {
        "check endpoint, region, access_key_id and secret_access_key of the storage"
    }

    fn encryption(&self) -> Option<Encryption> {
        let kms = || Encryption::SseKms {
            key_id: self.kms_key_id.clone(),
            bucket_key: self.bucket_key,
        };
        self.encryption.map(|method| match method {
            SseMethod::Aes256 => Encryption::SseS3,
            SseMethod::Kms => kms(),
        })
    }

    fn features(&self) -> Features {
        self.features
    }

    fn cors_rule(&self, origins: &[&str]) -> CorsRule {
        cors::rule(origins)
    }

    async fn connect(&self) -> Result<Arc<dyn BlobStore>> {
        Ok(Arc::new(S3Store::connect(self.clone()).await?))
    }

    async fn inspect(&self) -> Result<Box<dyn Inspect>> {
        Ok(Box::new(Inspection::new(self.clone()).await?))
    }

    fn compares_etags(&self) -> Option<bool> {
        Some(self.etags == Etags::Md5)
    }

    async fn connect_comparing_etags(&self, compares: bool) -> Result<Arc<dyn BlobStore>> {
        let etags = if compares { Etags::Md5 } else { Etags::Opaque };
        let config = Self {
            etags,
            ..self.clone()
        };
        config.connect().await
    }
}
