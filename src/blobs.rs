//! The adapters of the port [`BlobStore`], and what they share.

pub mod azure;
mod cors;
mod failed;
mod inspection;
mod preflight;
mod reach;
mod renewed;
pub mod s3;
mod secret_file;
mod signed;
mod transport;
pub mod url;

use std::{fmt::Debug, path::Path, sync::Arc};

use async_trait::async_trait;
use upload_gateway_core::{
    blobs::BlobStore,
    error::Result,
    upload::{Encryption, Features},
};

pub use self::{
    cors::CorsRule,
    inspection::{Inspect, Refusal},
    preflight::{NotAllowed, preflight},
};
pub(crate) use self::{
    failed::in_words,
    reach::reach,
    signed::{SignedAnswer, send_signed},
};
use crate::{
    certificates,
    values::{Endpoint, InvalidKey},
};

/// What the process asks of the configuration of a store, whatever its kind.
#[async_trait]
pub trait StoreSettings: Debug + Send + Sync {
    /// The smallest size, in bytes, that the store accepts for a part which is not the last.
    fn min_part_size(&self) -> u64;

    /// The endpoints that are set, each with its key.
    fn endpoints(&self) -> Vec<(&'static str, &Endpoint)>;

    /// The PEM file with authorities that are trusted in addition to those of the system, if one is set.
    fn ca_file(&self) -> Option<&Path>;

    /// Checks what the types of the keys leave open, and the PEM file.
    ///
    /// # Errors
    /// The first key that is invalid.
    fn validate(&self) -> Result<(), InvalidKey>;

    /// Advice for an operator if [`StoreSettings::connect`] fails: the keys to check.
    fn advice(&self) -> &'static str;

    /// How new objects are encrypted unless their uploads say it, if it is configured.
    fn encryption(&self) -> Option<Encryption>;

    /// What the store supports of a placement.
    fn features(&self) -> Features;

    /// The CORS rule that lets pages of these origins send signed requests to the store.
    fn cors_rule(&self, origins: &[&str]) -> CorsRule;

    /// Prepares the adapter. The store itself is not contacted.
    ///
    /// # Errors
    /// `Internal` if the adapter cannot work with the configuration.
    async fn connect(&self) -> Result<Arc<dyn BlobStore>>;

    /// As [`StoreSettings::connect`], to look at the bucket or container.
    ///
    /// # Errors
    /// As [`StoreSettings::connect`].
    async fn inspect(&self) -> Result<Box<dyn Inspect>>;

    /// Whether ETags are configured to be compared with MD5s. `None` if that cannot be configured.
    fn compares_etags(&self) -> Option<bool> {
        None
    }

    /// As [`StoreSettings::connect`], as if [`StoreSettings::compares_etags`] were `compares`.
    ///
    /// # Errors
    /// As [`StoreSettings::connect`].
    async fn connect_comparing_etags(&self, _compares: bool) -> Result<Arc<dyn BlobStore>> {
        self.connect().await
    }
}

/// Checks the file of the key `ca_file`.
fn check_authorities(ca_file: Option<&Path>) -> std::result::Result<(), InvalidKey> {
    let Some(path) = ca_file else { return Ok(()) };
    certificates::read(path)
        .and_then(|pem| certificates::authorities(path, &pem))
        .map(drop)
        .map_err(|problem| InvalidKey::new("ca_file", problem.to_string()))
}
