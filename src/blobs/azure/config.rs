//! Where a container is, and who opens it.

use std::{sync::Arc, time::Duration};

use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions},
};
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use serde::Deserialize;
use upload_gateway_core::{
    blobs::{OPERATION_TIMEOUT, SecretKey},
    error::{Error, Result},
};
use url::Url;

use super::fault::fault;

/// Where a container is, and how to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// The container, which must exist.
    pub container: String,
    /// The address of the account's blobs; `https://ACCOUNT.blob.core.windows.net` when absent.
    pub endpoint: Option<Url>,
    /// That address as callers reach it, used in signed URLs only; `endpoint` when absent.
    pub public_endpoint: Option<Url>,
    /// The account's key, base64; Entra ID when absent.
    pub account_key: Option<SecretKey>,
    /// Who the gateway is to Entra ID. When absent the workload identity where the environment (a Kubernetes pod's)
    /// describes one, otherwise the managed identity.
    pub identity: Option<Identity>,
    /// How long one request may take.
    pub operation_timeout: Duration,
}

/// Who the gateway is to Entra ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// A Kubernetes service account.
    Workload,
    /// The machine or app service it runs on.
    Managed,
    /// Whoever is logged in with `az` or `azd`.
    DeveloperTools,
}

// === impl AzureConfig ===

impl AzureConfig {
    /// That container in Azure's public cloud, opened with Entra ID.
    pub fn new(account: impl Into<String>, container: impl Into<String>) -> Self {
        Self {
            account: account.into(),
            container: container.into(),
            endpoint: None,
            public_endpoint: None,
            account_key: None,
            identity: None,
            operation_timeout: OPERATION_TIMEOUT,
        }
    }

    pub(super) fn endpoint(&self) -> Result<Url> {
        match &self.endpoint {
            Some(endpoint) => Ok(endpoint.clone()),
            None => Url::parse(&format!("https://{}.blob.core.windows.net", self.account))
                .map_err(|error| Error::internal("account is no host name", error)),
        }
    }

    /// The container's URL, where the account's is `endpoint`.
    pub(super) fn container_url(&self, mut endpoint: Url) -> Result<Url> {
        endpoint
            .path_segments_mut()
            .map_err(|()| Error::fault("endpoint is no base of URLs"))?
            .pop_if_empty()
            .push(&self.container);
        Ok(endpoint)
    }

    pub(super) fn credential(&self) -> Result<Arc<dyn TokenCredential>> {
        let credential = match self.identity {
            Some(Identity::Workload) => workload(),
            Some(Identity::Managed) => managed(),
            Some(Identity::DeveloperTools) => {
                DeveloperToolsCredential::new(None).map(|found| found as _)
            }
            None => workload().or_else(|_| managed()),
        };
        credential.map_err(|error| fault("find an Entra ID identity", error))
    }
}

fn workload() -> azure_core::Result<Arc<dyn TokenCredential>> {
    let mut options = WorkloadIdentityCredentialOptions::default();
    options.credential_options.client_options = once();
    WorkloadIdentityCredential::new(Some(options)).map(|found| found as _)
}

/// On a virtual machine the SDK insists on tries of its own, as Microsoft asks for there; the time-out of the request that
/// needs the token bounds them.
fn managed() -> azure_core::Result<Arc<dyn TokenCredential>> {
    let options = ManagedIdentityCredentialOptions {
        client_options: once(),
        ..ManagedIdentityCredentialOptions::default()
    };
    ManagedIdentityCredential::new(Some(options)).map(|found| found as _)
}

/// One try: the gateway owns retries.
fn once() -> ClientOptions {
    ClientOptions {
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}
