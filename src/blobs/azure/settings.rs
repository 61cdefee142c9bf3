//! What the process asks of the configuration of a container.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use upload_gateway_core::{
    blobs::BlobStore,
    error::Result,
    upload::{Encryption, Features, MIB},
};

use super::{AzureStore, config::AzureConfig, cors, placement::FEATURES};
use crate::{
    blobs::{CorsRule, Inspect, StoreSettings, check_authorities},
    values::{Endpoint, InvalidKey},
};

#[async_trait]
impl StoreSettings for AzureConfig {
    fn min_part_size(&self) -> u64 {
        MIB
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
        for (key, name) in [("account", &self.account), ("container", &self.container)] {
            if name.is_empty() {
                return Err(InvalidKey::new(key, "must not be empty"));
            }
        }
        match self.endpoint_url() {
            Ok(_) => Ok(()),
            Err(_) => Err(InvalidKey::new(
                "account",
                "must be the name of a storage account",
            )),
        }
    }

    fn advice(&self) -> &'static str {
        "check account, endpoint and account_key of the storage; the key is base64"
    }

    fn encryption(&self) -> Option<Encryption> {
        self.encryption_scope.clone().map(Encryption::Scope)
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn cors_rule(&self, origins: &[&str]) -> CorsRule {
        cors::rule(origins)
    }

    async fn connect(&self) -> Result<Arc<dyn BlobStore>> {
        Ok(Arc::new(AzureStore::connect(self.clone())?))
    }

    async fn inspect(&self) -> Result<Box<dyn Inspect>> {
        Ok(Box::new(AzureStore::connect(self.clone())?))
    }
}
