//! The configuration of the embedded S3: the table `[embedded]`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{
    cors::CorsOrigin,
    values::{self, InvalidKey, Secret},
};

/// Where the embedded S3 listens, and what it contains. Its default keys are public: it listens on loopback addresses only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedS3Config {
    /// The directory of its files, which is created if it does not exist. One process at a time can use it. Not a key of
    /// the table: it is a part of `data_dir`.
    #[serde(skip)]
    pub directory: PathBuf,
    /// The origins whose pages may send signed requests from a browser. Not a key of the table: it is the origins of the
    /// HTTP API, and those in `rest.cors_origins`.
    #[serde(skip)]
    pub cors_origins: Vec<CorsOrigin>,
    /// The listen address, which must be a loopback address. Port 0 selects a free port. A host name is
    /// resolved when it is read.
    #[serde(rename = "s3_listen", deserialize_with = "values::read_listen_address")]
    pub listen: SocketAddr,
    /// The name of the only bucket, which always exists (S3's rules for bucket names apply).
    pub bucket: String,
    /// The only access key id that it accepts.
    pub access_key_id: String,
    /// The secret of `access_key_id`.
    pub secret_access_key: Secret,
}

// === impl EmbeddedS3Config ===

impl Default for EmbeddedS3Config {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            cors_origins: Vec::new(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            bucket: "uploads".into(),
            access_key_id: "upload-gateway".into(),
            secret_access_key: "for-development-only".into(),
        }
    }
}

impl EmbeddedS3Config {
    /// Checks what the types of the keys leave open.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub fn validate(&self) -> Result<(), InvalidKey> {
        if !self.listen.ip().is_loopback() {
            return Err(InvalidKey::new(
                "s3_listen",
                "must be a loopback address: the embedded S3 is for development only",
            ));
        }
        if !s3s::path::check_bucket_name(&self.bucket) {
            return Err(InvalidKey::new("bucket", "must be a valid bucket name"));
        }
        Ok(())
    }
}
