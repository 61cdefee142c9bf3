//! A gateway in this process, and conversations with it, message by message.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use aws_smithy_http_client::tls;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;
use upload_gateway::{
    config::{
        AzureConfig, ByteSize, Config, S3Config, S3Profile, StorageConfig, StorageOptions,
        StoreConfig,
    },
    serve::{ServeError, Server},
};
use upload_gateway_client::proto::v1::{
    Chunk, FileDigest, FileMetadata, Finish, GetUploadRequest, Open, Upload, UploadProgress,
    UploadRequest, open::Target, upload_request::Message,
    upload_service_client::UploadServiceClient,
};
use upload_gateway_core::{gateway::IntegrityChoice, upload::PART_SIZE};

use super::{AzureBackend, S3Backend, wait::WAIT_TIMEOUT};

/// A gateway on free loopback ports; stops when dropped.
pub struct TestGateway {
    /// Its gRPC address.
    pub grpc: String,
    /// Its HTTP address.
    pub http: String,
    /// Its configuration, to start another one on the same stores.
    pub config: Config,
    /// The lines that it prints at start; one of them describes its embedded S3, if it has one.
    pub announcement: Vec<String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
    _directory: Option<TempDir>,
}

/// One stream to the gateway.
pub struct Conversation {
    messages: Option<mpsc::Sender<UploadRequest>>,
    progress: Streaming<UploadProgress>,
}

// === impl TestGateway ===

impl TestGateway {
    /// On the embedded stores, in a directory of its own.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`TestGateway::start`], with some keys changed.
    pub async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut config = Config {
            data_dir: directory.path().join("data"),
            ..Config::default()
        };
        configure(&mut config);
        let mut gateway = Self::over(config).await;
        gateway._directory = Some(directory);
        gateway
    }

    /// On the stores that `config` names; the listeners are on free ports.
    pub async fn over(mut config: Config) -> Self {
        config.grpc_listen.set_port(0);
        config.http_listen.set_port(0);
        config.validate().unwrap();
        // Boxed: it is large, and part of every test's future.
        let server = Box::pin(Server::bind(&config)).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let (grpc, http) = (
            server.grpc_address().unwrap(),
            server.http_address().unwrap(),
        );
        let announcement = server.announcement().unwrap();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            grpc: format!("http://{grpc}"),
            http: format!("http://{http}"),
            config,
            announcement,
            stop: Some(stop),
            task,
            _directory: None,
        }
    }

    /// Stops it as SIGTERM does, and waits until it has stopped.
    pub async fn stop(mut self) -> Config {
        let _ = self.stop.take().unwrap().send(());
        (&mut self.task).await.unwrap().unwrap();
        self.config.clone()
    }

    /// A client with a new connection.
    pub async fn client(&self) -> UploadServiceClient<Channel> {
        UploadServiceClient::connect(self.grpc.clone())
            .await
            .unwrap()
            .max_encoding_message_size(usize::MAX)
    }

    /// Begins a stream with progress.
    pub async fn converse(&self) -> Conversation {
        Conversation::begin(self.client().await).await
    }

    /// Sends all messages and half-closes; the finished upload or the refusal.
    pub async fn upload(&self, messages: Vec<UploadRequest>) -> Result<Upload, Status> {
        let mut client = self.client().await;
        let response = client.upload(tokio_stream::iter(messages)).await?;
        Ok(response.into_inner().upload.unwrap())
    }

    /// Reads a record.
    pub async fn get(&self, upload_id: &str) -> Result<Upload, Status> {
        let upload_id = upload_id.to_owned();
        let mut client = self.client().await;
        Ok(client
            .get_upload(GetUploadRequest { upload_id })
            .await?
            .into_inner())
    }

    /// The bytes of an object in the embedded store, read through S3.
    pub async fn read(&self, upload: &Upload) -> Vec<u8> {
        let object = upload.object.as_ref().expect("a finished upload");
        let response = self
            .s3()
            .get_object()
            .bucket(&object.bucket)
            .key(&object.key)
            .send()
            .await
            .unwrap();
        response.body.collect().await.unwrap().to_vec()
    }

    /// A client of the embedded S3.
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let line = self
            .announcement
            .iter()
            .find(|line| line.starts_with("embedded s3"))
            .unwrap();
        let word = |prefix: &str| {
            line.split(' ')
                .find_map(|word| word.strip_prefix(prefix))
                .unwrap()
                .to_owned()
        };
        let endpoint = line
            .split(' ')
            .find(|word| word.starts_with("http"))
            .unwrap();
        s3_client(
            endpoint,
            &word("access_key_id="),
            &word("secret_access_key="),
        )
    }

    /// Where its embedded stores keep their files.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The HTTP client that the AWS SDK uses by default.
pub fn sdk_http_client() -> aws_sdk_s3::config::SharedHttpClient {
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    aws_smithy_http_client::Builder::new()
        .tls_provider(provider)
        .build_https()
}

/// An S3 client.
pub fn s3_client(endpoint: &str, id: &str, secret: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version_latest()
        .endpoint_url(endpoint)
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .credentials_provider(aws_sdk_s3::config::Credentials::from_keys(id, secret, None))
        .force_path_style(true)
        .http_client(sdk_http_client())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

// === impl Conversation ===

impl Conversation {
    /// Begins a stream with progress over `client`'s connection.
    pub async fn begin(client: UploadServiceClient<Channel>) -> Self {
        Self::begin_with(client, None).await.unwrap()
    }

    /// As [`Conversation::begin`], with a fault header.
    pub async fn begin_with(
        mut client: UploadServiceClient<Channel>,
        faults: Option<&str>,
    ) -> Result<Self, Status> {
        let (messages, queue) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(queue));
        if let Some(faults) = faults {
            let metadata = request.metadata_mut();
            metadata.insert("x-upload-gateway-fault", faults.parse().unwrap());
        }
        let progress = client.upload_with_progress(request).await?.into_inner();
        Ok(Self {
            messages: Some(messages),
            progress,
        })
    }

    /// Sends one message; waits while the gateway does not read.
    pub async fn send(&self, message: UploadRequest) {
        // Fails after the gateway has refused the stream; the progress then has its answer.
        let _ = self.messages.as_ref().unwrap().send(message).await;
    }

    /// Sends `data` from `offset` on in chunks of `size` bytes.
    pub async fn send_in_chunks(&self, offset: usize, data: &[u8], size: usize) {
        for (index, piece) in data.chunks(size).enumerate() {
            self.send(chunk(offset + index * size, piece)).await;
        }
    }

    /// Half-closes.
    pub fn close(&mut self) {
        self.messages = None;
    }

    /// The next progress.
    pub async fn next(&mut self) -> Result<UploadProgress, Status> {
        self.progress
            .message()
            .await
            .map(|progress| progress.expect("the stream ended without an upload or an error"))
    }

    /// Waits until `size` bytes are committed.
    pub async fn committed(&mut self, size: usize) {
        while self.next().await.unwrap().committed_size < i64::try_from(size).unwrap() {}
    }

    /// Sends nothing more and waits for the error that ends the stream.
    pub async fn failure(&mut self) -> Status {
        let ended = timeout(WAIT_TIMEOUT, async {
            loop {
                if let Err(status) = self.next().await {
                    return status;
                }
            }
        });
        ended.await.expect("the stream does not end")
    }

    /// Half-closes and waits for the end: the finished upload or the refusal.
    pub async fn end(mut self) -> Result<Upload, Status> {
        self.close();
        let mut last = None;
        while let Some(progress) = self.progress.message().await? {
            last = progress.upload.or(last);
        }
        Ok(last.unwrap())
    }
}

impl S3Backend {
    /// The bucket as the storage `media` of a configuration.
    pub fn storage(&self, profile: S3Profile) -> StorageConfig {
        storage(StoreConfig::S3(S3Config {
            region: Some(self.region.into()),
            endpoint: Some(self.endpoint.parse().unwrap()),
            profile: Some(profile),
            access_key_id: Some(self.access_key.into()),
            secret_access_key: Some(self.secret_key.into()),
            ..S3Config::new(&self.bucket)
        }))
    }
}

impl AzureBackend {
    /// The container as the storage `media` of a configuration.
    pub fn storage(&self) -> StorageConfig {
        storage(StoreConfig::Azure(AzureConfig {
            endpoint: Some(self.endpoint.parse().unwrap()),
            account_key: Some(self.account_key.into()),
            ..AzureConfig::new(self.account, &self.container)
        }))
    }
}

/// The digest that all storages get: `INTEGRITY=md5`, or by default what they compare.
fn integrity() -> IntegrityChoice {
    match std::env::var("INTEGRITY").as_deref() {
        Ok("md5") => IntegrityChoice::Md5,
        Ok(other) if other != "auto" => panic!("INTEGRITY is neither auto nor md5: {other}"),
        _ => IntegrityChoice::Auto,
    }
}

/// A store as the storage `media` of a configuration.
pub fn storage(store: StoreConfig) -> StorageConfig {
    StorageConfig {
        options: StorageOptions {
            id: "media".into(),
            default: true,
            prefix: "kept/here".into(),
            part_size: ByteSize(PART_SIZE),
            allow_http: true,
            ext_filter: Vec::new(),
            mime_filter: Vec::new(),
            key: "{upload_id}/{name}".into(),
            max_file_size: None,
            expire_after: None,
            max_expire_after: None,
            metadata: std::collections::BTreeMap::new(),
            object_tags: std::collections::BTreeMap::new(),
            cache_control: None,
            content_disposition: None,
            content_encoding: None,
            storage_class: None,
            require_encryption: false,
            integrity: integrity(),
            tenants: Vec::new(),
        },
        store,
    }
}

/// Pseudo-random bytes, the same for every call.
pub fn bytes(length: usize) -> Vec<u8> {
    /// The last word, and all bytes so far: without optimisation, each MiB takes some milliseconds.
    static MADE: Mutex<(u64, Vec<u8>)> = Mutex::new((0x9e37_79b9_7f4a_7c15, Vec::new()));
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let (word, all) = &mut *made;
    while all.len() < length {
        *word ^= *word << 13;
        *word ^= *word >> 7;
        *word ^= *word << 17;
        all.extend_from_slice(&word.to_le_bytes());
    }
    all[..length].to_vec()
}

/// A message that opens a new upload of this name and size.
pub fn open(name: &str, size: Option<usize>) -> UploadRequest {
    open_file(FileMetadata {
        file_name: name.into(),
        file_digest: FileDigest::Md5.into(),
        file_size: size.map(|size| i64::try_from(size).unwrap()),
        ..FileMetadata::default()
    })
}

/// A message that opens a new upload.
pub fn open_file(file: FileMetadata) -> UploadRequest {
    message(Message::Open(Open {
        target: Some(Target::File(file)),
        ..Open::default()
    }))
}

/// A message that opens an existing upload.
pub fn open_known(upload_id: &str) -> UploadRequest {
    message(Message::Open(Open {
        target: Some(Target::UploadId(upload_id.into())),
        ..Open::default()
    }))
}

/// A message with bytes.
pub fn chunk(offset: usize, data: &[u8]) -> UploadRequest {
    message(Message::Chunk(Chunk {
        offset: i64::try_from(offset).unwrap(),
        data: Bytes::copy_from_slice(data),
        crc32c: None,
    }))
}

/// The last message.
pub fn finish() -> UploadRequest {
    message(Message::Finish(Finish::default()))
}

/// Any message.
pub fn message(message: Message) -> UploadRequest {
    UploadRequest {
        message: Some(message),
    }
}

/// The code and the reason of an error.
pub fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info();
    (
        status.code(),
        info.map(|info| info.reason).unwrap_or_default(),
    )
}
