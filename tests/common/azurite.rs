//! Azure Blob Storage: Azurite, Microsoft's emulator.

use std::{
    collections::BTreeMap,
    env,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use azure_core::time::{OffsetDateTime, to_rfc3339};
use azure_storage_blob::BlobContainerClient;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use url::Url;

use super::{
    memory_azure::{self, MemoryAzure, MemoryAzureServer},
    programs,
    server::{self, Server, Shared, unique_name},
};

const ACCOUNT: &str = "devstoreaccount1";
/// The key every Azurite has, published in Azurite's documentation.
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A new, empty container.
#[derive(Debug, Clone)]
pub struct AzureBackend {
    /// `http://127.0.0.1:PORT/ACCOUNT`.
    pub endpoint: String,
    /// The storage account.
    pub account: &'static str,
    /// The account's key, base64.
    pub account_key: &'static str,
    /// The container, which exists.
    pub container: String,
    server: Option<Arc<Server>>,
}

/// A container of its own for each caller, on the shared server.
pub async fn azure() -> Option<AzureBackend> {
    static SHARED: Shared = Shared::new(Weak::new());
    if let Ok(endpoint) = env::var("TEST_AZURE_ENDPOINT") {
        return Some(AzureBackend::create(endpoint, None).await);
    }
    let server = server::shared(&SHARED, start)?;
    Some(AzureBackend::create(endpoint(&server), Some(server)).await)
}

/// A server for the caller alone, with a container. Azurite saves its state only every few seconds: blobs survive
/// [`Server::stop`], but not always [`Server::kill`].
pub async fn private_azure() -> Option<(Server, AzureBackend)> {
    let server = start()?;
    let backend = AzureBackend::create(endpoint(&server), None).await;
    Some((server, backend))
}

/// A server in this process, with a container.
pub async fn memory_azure() -> (MemoryAzureServer, AzureBackend) {
    let container = unique_name();
    let server = MemoryAzure::new(&container).serve().await;
    let backend = AzureBackend {
        endpoint: server.endpoint.clone(),
        account: memory_azure::ACCOUNT,
        account_key: memory_azure::ACCOUNT_KEY,
        container,
        server: None,
    };
    (server, backend)
}

impl AzureBackend {
    /// The URL that sets the properties of the account at `endpoint`, such as its CORS rules.
    pub fn properties_url(endpoint: &str) -> Url {
        let mut account = Url::parse(endpoint).unwrap();
        account.set_query(Some(&account_signature()));
        account
            .query_pairs_mut()
            .extend_pairs([("restype", "service"), ("comp", "properties")]);
        account
    }

    /// A client with all permissions in the container, to inspect what the gateway stored.
    pub fn client(&self) -> BlobContainerClient {
        let mut container = Url::parse(&self.endpoint).unwrap();
        container.path_segments_mut().unwrap().push(&self.container);
        container.set_query(Some(&account_signature()));
        BlobContainerClient::new(container, None, None).unwrap()
    }

    /// The tags of a blob.
    pub async fn tags(&self, key: &str) -> BTreeMap<String, String> {
        let tags = self.client().blob_client(key).get_tags(None).await.unwrap();
        let tags = tags.into_model().unwrap().blob_tag_set.unwrap_or_default();
        let pairs = tags.into_iter();
        pairs
            .map(|tag| (tag.key.unwrap(), tag.value.unwrap()))
            .collect()
    }

    async fn create(endpoint: String, server: Option<Arc<Server>>) -> Self {
        let backend = Self {
            endpoint,
            account: ACCOUNT,
            account_key: ACCOUNT_KEY,
            container: unique_name(),
            server,
        };
        backend.client().create(None).await.unwrap();
        backend
    }
}

/// The query of an account SAS for the account, containers and blobs, valid for an hour.
fn account_signature() -> String {
    let (version, permissions, services, resources, protocol) =
        ("2023-11-03", "rwdlact", "b", "sco", "https,http");
    let expiry = OffsetDateTime::from(SystemTime::now() + Duration::from_secs(3600));
    let expiry = to_rfc3339(&expiry.replace_nanosecond(0).unwrap());
    // The empty lines are start time, address range and encryption scope.
    let signed = format!(
        "{ACCOUNT}\n{permissions}\n{services}\n{resources}\n\n{expiry}\n\n{protocol}\n{version}\n\n"
    );
    let key = BASE64_STANDARD.decode(ACCOUNT_KEY).unwrap();
    let code = Hmac::<Sha256>::new_from_slice(&key)
        .unwrap()
        .chain_update(signed)
        .finalize();
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("sv", version),
            ("ss", services),
            ("srt", resources),
            ("sp", permissions),
        ])
        .extend_pairs([("se", &*expiry), ("spr", protocol)])
        .append_pair("sig", &BASE64_STANDARD.encode(code.into_bytes()))
        .finish()
}

fn start() -> Option<Server> {
    programs::find("azurite-blob")?;
    Some(Server::start(|port, directory| {
        // It is a script for Node.
        let mut command = programs::command("azurite-blob").expect("it was found");
        command
            .args(["--blobPort", &port.to_string(), "--location"])
            .arg(directory);
        command.args(["--skipApiVersionCheck", "--silent", "--disableTelemetry"]);
        command
    }))
}

fn endpoint(server: &Server) -> String {
    format!("http://127.0.0.1:{}/{ACCOUNT}", server.port())
}
