//! The stores under test, and their differences.

use std::{any::Any, fmt::Debug, net::TcpListener, sync::Arc};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use futures::TryStreamExt;
use upload_gateway::{
    blobs::{
        azure::{AzureConfig, AzureStore, BlockId},
        s3::{Profile, S3Config, S3Store},
    },
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
};
use upload_gateway_core::{
    blobs::{BlobStore, Commit, NewObject, NewPart, Session},
    upload::{Checksum, Crc64Nvme, Integrity, Md5, Part, UploadId, WriterTag},
};

use crate::common;

/// The minimum size in bytes of every part but the last.
pub(crate) const PART: usize = 5 * 1024 * 1024;

/// One store, and its differences.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) store: Arc<dyn BlobStore>,
    /// Which digest it compares.
    pub(crate) integrity: Integrity,
    /// Whether the store has sessions that begin and end.
    pub(crate) sessions: bool,
    /// Its answer to a commit that has already succeeded.
    pub(crate) repeated_commit: Commit,
    /// The container, if it is on Azure.
    azure: Option<common::AzureBackend>,
    config: Config,
    /// Stops when the subject is dropped.
    _server: Box<dyn Any + Send + Sync>,
}

/// Errors of a configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Broken {
    MissingBucket,
    WrongCredentials,
    DeadEndpoint,
}

#[derive(Debug, Clone)]
enum Config {
    S3(S3Config),
    Azure(AzureConfig),
}

pub(crate) async fn embedded() -> Option<Subject> {
    let directory = tempfile::tempdir().unwrap();
    let server = EmbeddedS3::start(EmbeddedS3Config {
        directory: directory.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        bucket: "media".into(),
        access_key_id: "development".into(),
        secret_access_key: "development-secret".into(),
        ..EmbeddedS3Config::default()
    });
    let server = server.await.unwrap();
    let config = s3_config(
        &server.endpoint(),
        "media",
        ["development", "development-secret"],
    );
    Some(Subject {
        store: open(&Config::S3(config.clone())).await,
        integrity: Integrity::Md5,
        sessions: true,
        repeated_commit: Commit::Done,
        azure: None,
        config: Config::S3(config),
        _server: Box::new((server, directory)),
    })
}

pub(crate) async fn versitygw() -> Option<Subject> {
    let server = common::s3().await?;
    let keys = [server.access_key, server.secret_key];
    let config = s3_config(&server.endpoint, &server.bucket, keys);
    Some(Subject {
        store: open(&Config::S3(config.clone())).await,
        integrity: Integrity::Md5,
        sessions: true,
        repeated_commit: Commit::Done,
        azure: None,
        config: Config::S3(config),
        _server: Box::new(server),
    })
}

pub(crate) async fn azurite() -> Option<Subject> {
    Some(azure(common::azure().await?, Box::new(())).await)
}

/// The same stores, which compare CRC-64s.
pub(crate) async fn embedded_crc64() -> Option<Subject> {
    Some(embedded().await?.with_crc64())
}

pub(crate) async fn versitygw_crc64() -> Option<Subject> {
    Some(versitygw().await?.with_crc64())
}

pub(crate) async fn azurite_crc64() -> Option<Subject> {
    Some(azurite().await?.with_crc64())
}

pub(crate) async fn memory_azure_crc64() -> Option<Subject> {
    Some(memory_azure().await?.with_crc64())
}

/// The store in memory that other tests use is one more Azure.
pub(crate) async fn memory_azure() -> Option<Subject> {
    let (running, server) = common::memory_azure().await;
    Some(azure(server, Box::new(running)).await)
}

async fn azure(server: common::AzureBackend, running: Box<dyn Any + Send + Sync>) -> Subject {
    let mut config = AzureConfig::new(server.account, &server.container);
    config.endpoint = Some(server.endpoint.parse().unwrap());
    config.account_key = Some(server.account_key.into());
    Subject {
        store: open(&Config::Azure(config.clone())).await,
        integrity: Integrity::Md5,
        sessions: false,
        repeated_commit: Commit::Done,
        azure: Some(server),
        config: Config::Azure(config),
        _server: running,
    }
}

fn s3_config(endpoint: &str, bucket: &str, [id, secret]: [&str; 2]) -> S3Config {
    let mut config = S3Config::new(bucket);
    config.endpoint = Some(endpoint.parse().unwrap());
    config.region = Some("us-east-1".into());
    config.profile = Some(Profile::Compatible);
    config.access_key_id = Some(id.into());
    config.secret_access_key = Some(secret.into());
    config
}

async fn open(config: &Config) -> Arc<dyn BlobStore> {
    match config.clone() {
        Config::S3(config) => Arc::new(S3Store::connect(config).await.unwrap()),
        Config::Azure(config) => Arc::new(AzureStore::connect(config).unwrap()),
    }
}

// === impl Subject ===

impl Subject {
    fn with_crc64(self) -> Self {
        Self {
            integrity: Integrity::Crc64Nvme,
            ..self
        }
    }

    /// The same store, with a wrong configuration.
    pub(crate) async fn broken(&self, broken: Broken) -> Arc<dyn BlobStore> {
        let mut config = self.config.clone();
        match (&mut config, broken) {
            (Config::S3(config), Broken::MissingBucket) => config.bucket = "absent".into(),
            (Config::Azure(config), Broken::MissingBucket) => config.container = "absent".into(),
            (Config::S3(config), Broken::WrongCredentials) => {
                config.secret_access_key = Some("wrong".into());
            }
            (Config::Azure(config), Broken::WrongCredentials) => {
                config.account_key = Some("d3Jvbmc=".into());
            }
            (config, Broken::DeadEndpoint) => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                config.redirect(&listener);
            }
        }
        open(&config).await
    }

    /// The same store with an endpoint that never answers, and a time-out of 200 ms.
    pub(crate) async fn silent(&self) -> (TcpListener, Arc<dyn BlobStore>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = self.config.clone();
        config.redirect(&listener);
        let timeout = std::time::Duration::from_millis(200);
        match &mut config {
            Config::S3(config) => config.operation_timeout = timeout,
            Config::Azure(config) => config.operation_timeout = timeout,
        }
        (listener, open(&config).await)
    }

    /// An object to be made, with a unique key.
    pub(crate) fn object(&self) -> NewObject {
        let upload_id = UploadId::generate(None);
        NewObject {
            size: None,
            key: format!("{upload_id}/file.bin"),
            mime: "video/mp4".into(),
            upload_id,
            md5: None,
            crc64nvme: None,
            integrity: self.integrity,
            record: None,
            placement: Box::default(),
        }
    }

    /// An object to be made of these bytes, with a unique key.
    pub(crate) fn object_of(&self, body: &[u8]) -> NewObject {
        NewObject {
            md5: Some(Md5::of(body)),
            crc64nvme: Some(Crc64Nvme::of(body)),
            ..self.object()
        }
    }

    /// A part to be put.
    pub(crate) fn part(&self, writer: WriterTag, number: u32, body: &[u8]) -> NewPart {
        NewPart {
            number,
            writer,
            checksum: Checksum::of(self.integrity, body),
            body: body.to_vec().into(),
        }
    }

    /// Puts a part and returns what the record would keep of it.
    pub(crate) async fn put(&self, session: &Session<'_>, number: u32, body: &[u8]) -> Part {
        self.put_as(WriterTag::random(), session, number, body)
            .await
    }

    /// Puts a part as this stream.
    pub(crate) async fn put_as(
        &self,
        writer: WriterTag,
        session: &Session<'_>,
        number: u32,
        body: &[u8],
    ) -> Part {
        let part = self.part(writer, number, body);
        let checksum = part.checksum;
        Part {
            number,
            offset: 0,
            size: body.len() as u64,
            checksum: Some(checksum),
            receipt: self.store.put_part(session, part).await.unwrap(),
            digest: None,
        }
    }

    /// A well-formed receipt of a part that was never put.
    pub(crate) fn foreign_receipt(&self) -> String {
        match self.config {
            Config::S3(_) => Md5::of(b"other bytes").to_hex(),
            Config::Azure(_) => BlockId::Streamed {
                number: 1,
                writer: WriterTag::random(),
            }
            .to_base64(),
        }
    }

    /// All bytes of an object.
    pub(crate) async fn read(&self, key: &str) -> Vec<u8> {
        collect(&*self.store, key, None).await
    }

    /// The object's media type, read without the adapter.
    pub(crate) async fn media_type(&self, key: &str) -> Option<String> {
        match &self.config {
            Config::S3(config) => {
                let request = s3_client(config)
                    .head_object()
                    .bucket(&config.bucket)
                    .key(key);
                request.send().await.unwrap().content_type
            }
            Config::Azure(_) => {
                use azure_storage_blob::models::BlobClientGetPropertiesResultHeaders;
                let blob = self.azure.as_ref().unwrap().client().blob_client(key);
                blob.get_properties(None)
                    .await
                    .unwrap()
                    .content_type()
                    .unwrap()
            }
        }
    }

    /// The keys in the bucket, listed without the adapter.
    pub(crate) async fn keys(&self) -> Vec<String> {
        match &self.config {
            Config::S3(config) => {
                let request = s3_client(config).list_objects_v2().bucket(&config.bucket);
                let answer = request.send().await.unwrap();
                let keys = answer.contents().iter();
                keys.filter_map(|object| object.key.clone()).collect()
            }
            Config::Azure(_) => {
                let blobs = self
                    .azure
                    .as_ref()
                    .unwrap()
                    .client()
                    .list_blobs(None)
                    .unwrap();
                let blobs: Vec<_> = blobs.try_collect().await.unwrap();
                blobs.into_iter().filter_map(|blob| blob.name).collect()
            }
        }
    }
}

impl Config {
    fn redirect(&mut self, listener: &TcpListener) {
        let address = format!("http://{}", listener.local_addr().unwrap());
        let address = Some(address.parse().unwrap());
        match self {
            Self::S3(config) => config.endpoint = address,
            Self::Azure(config) => config.endpoint = address,
        }
    }
}

/// `size` bytes that do not repeat within any two parts.
pub(crate) fn bytes(size: usize, seed: u8) -> Vec<u8> {
    (0..size)
        .map(|index| (index % 251 + index / 65_521).to_le_bytes()[0] ^ seed)
        .collect()
}

/// These bytes of an object.
pub(crate) async fn collect(
    store: &dyn BlobStore,
    key: &str,
    range: Option<std::ops::Range<u64>>,
) -> Vec<u8> {
    let chunks = store.read(key, range, None).await.unwrap();
    let chunks: Vec<_> = chunks.try_collect().await.unwrap();
    chunks.concat()
}

fn s3_client(config: &S3Config) -> aws_sdk_s3::Client {
    let secret = config.secret_access_key.as_ref().unwrap().expose();
    let id = config.access_key_id.as_deref().unwrap();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(config.endpoint.as_ref().unwrap().as_str())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::from_keys(id, secret, None))
        .force_path_style(true)
        .http_client(common::sdk_http_client())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}
