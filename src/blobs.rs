//! The adapters of the port [`BlobStore`], and what they share.

pub mod azure;
mod cors;
mod failed;
mod preflight;
mod renewed;
pub mod s3;
mod secret_file;
mod transport;
pub mod url;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use upload_gateway_core::{blobs::BlobStore, error::Result};

pub use self::{
    cors::CorsRule,
    preflight::{NotAllowed, preflight},
};
use crate::values::{Endpoint, InvalidKey};

/// What the process asks of the configuration of a store, whatever its kind.
#[async_trait]
pub trait StoreSettings: Debug + Send + Sync {
    /// The smallest size, in bytes, that the store accepts for a part which is not the last.
    fn min_part_size(&self) -> u64;

    /// The endpoints that are set, each with its key.
    fn endpoints(&self) -> Vec<(&'static str, &Endpoint)>;

    /// Checks what the types of the keys leave open.
    ///
    /// # Errors
    /// The first key that is invalid.
    fn validate(&self) -> Result<(), InvalidKey>;

    /// Advice for an operator if [`StoreSettings::connect`] fails: the keys to check.
    fn advice(&self) -> &'static str;

    /// The CORS rule that lets pages of these origins send signed requests to the store.
    fn cors_rule(&self, origins: &[&str]) -> CorsRule;

    /// Prepares the adapter. The store itself is not contacted.
    ///
    /// # Errors
    /// `Internal` if the adapter cannot work with the configuration.
    async fn connect(&self) -> Result<Arc<dyn BlobStore>>;

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
