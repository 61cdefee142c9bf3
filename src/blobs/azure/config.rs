//! The configuration of the Azure adapter: the keys of a `[[storage]]` table with `kind = "azure"`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    blobs::{COMMIT_TIMEOUT, OPERATION_TIMEOUT},
    error::{Error, Result},
};
use url::Url;

use super::fault::fault;
use crate::values::{Endpoint, Secret};

/// A container, and how to access it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// The container, which must exist.
    pub container: String,
    /// The address of the account's blobs. Not set: `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: Option<Endpoint>,
    /// The address under which clients reach the account's blobs. It is used in signed URLs only. Not set: `endpoint`.
    pub public_endpoint: Option<Endpoint>,
    /// A PEM file with certificate authorities that are trusted in addition to those of the system. It is read again when its
    /// content changes.
    pub ca_file: Option<PathBuf>,
    /// The account's key, in base64. Not set: Entra ID.
    pub account_key: Option<Secret>,
    /// A file that contains `account_key`.
    pub account_key_file: Option<PathBuf>,
    /// The encryption scope of new blobs. Not set: the default one of the container or the account.
    pub encryption_scope: Option<String>,
    /// The identity for Entra ID. Not set: the workload identity if the environment (of a Kubernetes pod) describes one,
    /// otherwise the managed identity.
    #[serde(skip)]
    pub identity: Option<Identity>,
    /// The time limit of one request; for a request or a response with the bytes of a file, the longest time in which
    /// no byte moves.
    #[serde(skip, default = "operation_timeout")]
    pub operation_timeout: Duration,
    /// The time limit of the request that makes an object of its blocks.
    #[serde(skip, default = "commit_timeout")]
    pub commit_timeout: Duration,
}

/// An identity that Entra ID knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// A Kubernetes service account.
    Workload,
    /// That of the machine or app service.
    Managed,
    /// The account that is logged in with `az` or `azd`.
    DeveloperTools,
}

const fn operation_timeout() -> Duration {
    OPERATION_TIMEOUT
}

const fn commit_timeout() -> Duration {
    COMMIT_TIMEOUT
}

// === impl AzureConfig ===

impl AzureConfig {
    /// The container of that name in Azure's public cloud, accessed with Entra ID.
    pub fn new(account: impl Into<String>, container: impl Into<String>) -> Self {
        Self {
            account: account.into(),
            container: container.into(),
            endpoint: None,
            public_endpoint: None,
            ca_file: None,
            account_key: None,
            account_key_file: None,
            encryption_scope: None,
            identity: None,
            operation_timeout: OPERATION_TIMEOUT,
            commit_timeout: COMMIT_TIMEOUT,
        }
    }

    /// The address of the account's blobs.
    pub(super) fn endpoint_url(&self) -> Result<Url> {
        match &self.endpoint {
            Some(endpoint) => Ok(endpoint.url().clone()),
            None => Url::parse(&format!("https://{}.blob.core.windows.net", self.account))
                .map_err(|error| Error::internal("account is not a host name", error)),
        }
    }

    /// The container's URL below `endpoint`, the URL of the account.
    pub(super) fn container_url(&self, mut endpoint: Url) -> Result<Url> {
        endpoint
            .path_segments_mut()
            .map_err(|()| Error::fault("endpoint cannot be a base URL"))?
            .pop_if_empty()
            .push(&self.container);
        Ok(endpoint)
    }

    /// The credential for Entra ID, which is reached through `transport`.
    pub(super) fn credential(&self, transport: &Transport) -> Result<Arc<dyn TokenCredential>> {
        let once = || once(transport);
        let credential = match self.identity {
            Some(Identity::Workload) => workload(once()),
            Some(Identity::Managed) => managed(once()),
            Some(Identity::DeveloperTools) => {
                DeveloperToolsCredential::new(None).map(|found| found as _)
            }
            None => workload(once()).or_else(|_| managed(once())),
        };
        credential.map_err(|error| fault("find an Entra ID identity", error))
    }
}

fn workload(client_options: ClientOptions) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let mut options = WorkloadIdentityCredentialOptions::default();
    options.credential_options.client_options = client_options;
    WorkloadIdentityCredential::new(Some(options)).map(|found| found as _)
}

/// On a virtual machine the SDK retries by itself, as Microsoft recommends there. The time limit of the request that needs
/// the token bounds these retries.
fn managed(client_options: ClientOptions) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let options = ManagedIdentityCredentialOptions {
        client_options,
        ..ManagedIdentityCredentialOptions::default()
    };
    ManagedIdentityCredential::new(Some(options)).map(|found| found as _)
}

/// Without retries: the gateway retries.
fn once(transport: &Transport) -> ClientOptions {
    ClientOptions {
        retry: RetryOptions::none(),
        transport: Some(transport.clone()),
        ..ClientOptions::default()
    }
}
