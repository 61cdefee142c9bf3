//! The key of a store is replaced while an upload runs, in the store and in the file that the configuration names. No call
//! fails.

use std::{fs, path::PathBuf, sync::Arc};

use tempfile::TempDir;
use upload_gateway::{
    config::{AzureConfig, S3Config, S3Profile, StoreConfig},
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
};
use upload_gateway_client::proto::v1::Phase;

use crate::common::{
    self, TestGateway, bytes, finish,
    memory_azure::MemoryAzure,
    open,
    signing_client::{Client, PART, file},
    until,
};

/// The keys in base64, so that they are valid for Azure, too.
const FIRST: &str = "Zmlyc3Q=";
const SECOND: &str = "c2Vjb25k";

/// A store whose key can be replaced.
enum Store {
    S3(Option<EmbeddedS3>, Box<EmbeddedS3Config>),
    Azure(Arc<MemoryAzure>),
}

/// A gateway that reads the key of its store from a file.
struct Keyed {
    gateway: TestGateway,
    store: Store,
    key_file: PathBuf,
    _directory: TempDir,
    _server: Box<dyn Send + Sync>,
}

// === impl Keyed ===

impl Keyed {
    async fn s3() -> Self {
        let directory = TempDir::new().unwrap();
        let mut config = EmbeddedS3Config {
            directory: directory.path().join("blobs"),
            secret_access_key: FIRST.into(),
            ..EmbeddedS3Config::default()
        };
        let server = EmbeddedS3::start(config.clone()).await.unwrap();
        config.listen = server.endpoint()["http://".len()..].parse().unwrap();
        let key_file = directory.path().join("key");
        let s3 = S3Config {
            region: Some("us-east-1".into()),
            endpoint: Some(server.endpoint().parse().unwrap()),
            profile: Some(S3Profile::Compatible),
            access_key_id: Some(config.access_key_id.clone()),
            secret_access_key: Some(FIRST.into()),
            secret_access_key_file: Some(key_file.clone()),
            ..S3Config::new(&config.bucket)
        };
        let store = Store::S3(Some(server), Box::new(config));
        Self::over(
            StoreConfig::S3(s3),
            store,
            key_file,
            directory,
            Box::new(()),
        )
        .await
    }

    async fn azure() -> Self {
        let directory = TempDir::new().unwrap();
        let (server, backend) = common::memory_azure().await;
        server.azure.replace_key(FIRST);
        let key_file = directory.path().join("key");
        let StoreConfig::Azure(azure) = backend.storage().store else {
            panic!("the storage is Azure");
        };
        let azure = AzureConfig {
            account_key: Some(FIRST.into()),
            account_key_file: Some(key_file.clone()),
            ..azure
        };
        let store = Store::Azure(Arc::clone(&server.azure));
        let config = StoreConfig::Azure(azure);
        Self::over(config, store, key_file, directory, Box::new(server)).await
    }

    async fn over(
        config: StoreConfig,
        store: Store,
        key_file: PathBuf,
        directory: TempDir,
        server: Box<dyn Send + Sync>,
    ) -> Self {
        fs::write(&key_file, FIRST).unwrap();
        let storage = common::storage(config);
        Self {
            gateway: TestGateway::with(|config| config.storage = vec![storage]).await,
            store,
            key_file,
            _directory: directory,
            _server: server,
        }
    }

    async fn replace_key(&mut self) {
        fs::write(&self.key_file, format!("{SECOND}\n")).unwrap();
        match &mut self.store {
            Store::S3(server, config) => {
                server.take().unwrap().stop().await;
                config.secret_access_key = SECOND.into();
                *server = Some(EmbeddedS3::start((**config).clone()).await.unwrap());
            }
            Store::Azure(azure) => azure.replace_key(SECOND),
        }
    }
}

async fn an_upload_continues(mut keyed: Keyed) {
    let data = bytes(2 * PART + 1000);
    let mut stream = keyed.gateway.converse().await;
    stream.send(open("film.mp4", Some(data.len()))).await;
    stream.send_in_chunks(0, &data[..PART], 1 << 20).await;
    stream.committed(PART).await;
    keyed.replace_key().await;
    stream.send_in_chunks(PART, &data[PART..], 1 << 20).await;
    stream.send(finish()).await;
    assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
}

/// Nothing but the health check sends requests to the store.
async fn an_idle_gateway_signs_with_the_new_key(mut keyed: Keyed) {
    let data = bytes(1000);
    let mut client = Client::of(&keyed.gateway).await;
    let step = client.create(file("first.txt", &data)).await.unwrap();
    client.deliver(&step, data.clone()).await;
    keyed.replace_key().await;
    let mut id = String::new();
    until("a signature with the new key", async || {
        let step = client.create(file("second.txt", &data)).await.unwrap();
        let signature = step.signature.as_ref().unwrap();
        let (status, _) = client.send(signature, data.clone()).await;
        id = step.upload_id;
        (200..300).contains(&status)
    })
    .await;
    let upload = client.complete(&id).await.unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
}

#[tokio::test]
async fn an_upload_to_s3_continues() {
    an_upload_continues(Keyed::s3().await).await;
}

#[tokio::test]
async fn an_upload_to_azure_continues() {
    an_upload_continues(Keyed::azure().await).await;
}

#[tokio::test]
async fn an_idle_gateway_signs_with_the_new_key_of_s3() {
    an_idle_gateway_signs_with_the_new_key(Keyed::s3().await).await;
}

#[tokio::test]
async fn an_idle_gateway_signs_with_the_new_key_of_azure() {
    an_idle_gateway_signs_with_the_new_key(Keyed::azure().await).await;
}
