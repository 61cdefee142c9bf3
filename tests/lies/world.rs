//! The stores of one run: a truthful store, the layer in front of it, and a gateway that knows only the layer.

use std::{
    any::Any,
    fmt,
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_types::StatusExt as _;
use upload_gateway::{
    config::{
        AzureConfig, ByteSize, Config, KeyConfig, S3Config, S3Profile, StorageConfig,
        StorageOptions, StoreConfig,
    },
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
    serve::{Backends, connect, connect_storage},
};
use upload_gateway_client::ClientError;
use upload_gateway_core::{
    blobs::{BlobStore, Session},
    clock::Clock,
    gateway::{Gateway, IntegrityChoice, Sweep},
    upload::{MIB, Md5, PART_SIZE, Timestamp, Upload, UploadId},
};

use crate::failed::Failed;
use crate::{
    common::{self, TestGateway, memory_azure::MemoryAzure},
    layer::{Behind, Layer, Protocol},
    lie::Rule,
};

/// How long one run may take.
const RUN: Duration = Duration::from_secs(20);

/// How long the gateway retries.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// The time between two passes of the sweeper, by its clock.
const PASSES: Duration = Duration::from_secs(5 * 60);

/// How long a negative answer must last until it is believed.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// The smallest file that takes two parts on every store.
pub(crate) static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| common::bytes(PART + 100));

/// The MD5 of all of [`FILE`], computed once for all runs.
static FILE_MD5: LazyLock<Md5> = LazyLock::new(|| Md5::of(&FILE));

/// The size in bytes of a part.
pub(crate) const PART: usize = 5 * 1024 * 1024;

/// What is behind the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum StoreKind {
    /// The embedded S3, in this process.
    S3,
    /// Azure's protocol, in this process.
    Azure,
    /// A strict S3 server.
    Versitygw,
    Azurite,
}

/// Everything that one run needs.
pub(crate) struct World {
    pub(crate) kind: StoreKind,
    pub(crate) layer: Layer,
    pub(crate) config: Config,
    /// The store without the layer.
    pub(crate) truth: Arc<dyn BlobStore>,
    pub(crate) memory: Option<Arc<MemoryAzure>>,
    pub(crate) deadline: Instant,
    gateway: Option<TestGateway>,
    _directory: TempDir,
    _running: Box<dyn Any + Send + Sync>,
}

/// The system's clock, moved ahead by some milliseconds.
#[derive(Debug, Clone)]
struct Ahead(Arc<AtomicU64>);

/// When there is nothing more to sweep.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until<'a> {
    /// The upload with this id is COMPLETE or ABORTED.
    Ended(&'a str),
    /// The store does not know the session any more.
    Gone(Session<'a>),
}

/// A store that runs.
struct Running {
    behind: Behind,
    store: StoreConfig,
    memory: Option<Arc<MemoryAzure>>,
    guard: Box<dyn Any + Send + Sync>,
}

// === impl StoreKind ===

impl StoreKind {
    pub(crate) const ALL: [Self; 4] = [Self::S3, Self::Azure, Self::Versitygw, Self::Azurite];

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::S3 | Self::Versitygw => Protocol::S3,
            Self::Azure | Self::Azurite => Protocol::Azure,
        }
    }

    pub(crate) fn is_in_process(self) -> bool {
        matches!(self, Self::S3 | Self::Azure)
    }

    /// `None` if the server is not installed.
    async fn run(self, directory: &Path) -> Option<Running> {
        Some(match self {
            Self::S3 => embedded(directory).await,
            Self::Azure => {
                let (server, backend) = common::memory_azure().await;
                Running {
                    behind: Behind::Memory(Arc::clone(&server.azure)),
                    store: backend.storage().store,
                    memory: Some(Arc::clone(&server.azure)),
                    guard: Box::new(server),
                }
            }
            Self::Versitygw => {
                let server = common::s3().await?;
                Running {
                    behind: Behind::Server(server.endpoint.clone()),
                    store: server.storage(S3Profile::Compatible).store,
                    memory: None,
                    guard: Box::new(server),
                }
            }
            Self::Azurite => {
                let server = common::azure().await?;
                let endpoint = server.endpoint.rsplit_once('/').unwrap().0.to_owned();
                Running {
                    behind: Behind::Server(endpoint),
                    store: server.storage().store,
                    memory: None,
                    guard: Box::new(server),
                }
            }
        })
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Versitygw => "versitygw",
            Self::Azurite => "azurite",
        })
    }
}

async fn embedded(directory: &Path) -> Running {
    let config = EmbeddedS3Config {
        directory: directory.join("blobs"),
        ..EmbeddedS3Config::default()
    };
    let server = EmbeddedS3::start(config.clone()).await.unwrap();
    let store = S3Config {
        region: Some("us-east-1".into()),
        endpoint: Some(server.endpoint().parse().unwrap()),
        profile: Some(S3Profile::Compatible),
        access_key_id: Some(config.access_key_id),
        secret_access_key: Some(config.secret_access_key),
        ..S3Config::new(&config.bucket)
    };
    Running {
        behind: Behind::Server(server.endpoint()),
        store: StoreConfig::S3(store),
        memory: None,
        guard: Box::new(server),
    }
}

// === impl World ===

impl World {
    /// `None` if the server is not installed.
    pub(crate) async fn start(kind: StoreKind, faults: Vec<Rule>, lies: Vec<Rule>) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let Running {
            behind,
            store,
            memory,
            guard,
        } = kind.run(directory.path()).await?;
        let truth = connect_storage(&storage(store.clone())).await.unwrap();
        let layer = Layer::start(kind.protocol(), behind, faults, lies).await;
        let config = config(directory.path(), through(store, &layer));
        let gateway = Box::pin(TestGateway::over(config.clone())).await;
        Some(Self {
            kind,
            layer,
            config,
            truth,
            memory,
            deadline: Instant::now() + RUN,
            gateway: Some(gateway),
            _directory: directory,
            _running: guard,
        })
    }

    pub(crate) fn gateway(&self) -> &TestGateway {
        self.gateway.as_ref().expect("the gateway runs")
    }

    pub(crate) fn is_s3(&self) -> bool {
        self.kind.protocol() == Protocol::S3
    }

    pub(crate) async fn stop(&mut self) {
        let Some(gateway) = self.gateway.take() else {
            return;
        };
        gateway.stop().await;
        // Calls that the gateway does not wait for may still use the state.
        let state = std::fs::File::open(self.config.data_dir.join("state.redb")).unwrap();
        while state.try_lock().is_err() && Instant::now() < self.deadline {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a gateway on the same stores.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let gateway = Box::pin(TestGateway::over(self.config.clone())).await;
        self.gateway = Some(gateway);
    }

    /// Loses all records.
    pub(crate) async fn lose_state(&mut self) {
        self.stop().await;
        std::fs::remove_file(self.config.data_dir.join("state.redb")).unwrap();
        self.restart().await;
    }

    /// Stops the gateway, and sweeps like a replica whose clock is ahead by `ahead`.
    pub(crate) async fn sweep(
        &mut self,
        ahead: Duration,
        session_age: Option<Duration>,
        until: Until<'_>,
    ) -> Result<(), Failed> {
        self.stop().await;
        let backends = connect(&self.config).await.unwrap();
        let clock = Ahead::by(ahead);
        let gateway = Gateway::new(
            Arc::clone(&backends.state),
            backends.storages.clone(),
            self.config.settings().unwrap(),
            Arc::new(clock.clone()),
        );
        let gateway = gateway.await.unwrap();
        let pass = Sweep {
            dry_run: false,
            operations_per_second: 100_000,
            session_age,
            interval: None,
        };
        loop {
            let swept = gateway
                .sweeper
                .sweep(&pass, &CancellationToken::new())
                .await;
            let done = match until {
                Until::Ended(id) => record(&backends, id).await.is_some_and(|it| !it.is_live()),
                Until::Gone(session) => self.truth.list_parts(&session).await.unwrap().is_none(),
            };
            if done {
                return Ok(());
            }
            self.check_time(&format!("{swept:?}"))?;
            sleep(Duration::from_millis(100)).await;
            clock.advance(PASSES);
        }
    }

    /// The bytes of an object, read without the layer.
    pub(crate) async fn read(&self, key: &str) -> Result<Vec<u8>, Failed> {
        let read = async {
            let pieces: Vec<bytes::Bytes> = self
                .truth
                .read(key, None, None)
                .await?
                .try_collect()
                .await?;
            Ok::<_, upload_gateway_core::error::Error>(pieces.concat())
        };
        let read = read.await;
        read.map_err(|error| Failed::Wrong(format!("the object cannot be read: {error}")))
    }

    /// The key of an upload's object.
    pub(crate) fn key(&self, id: &str, name: &str) -> String {
        format!("{}/{id}/{name}", self.config.storage[0].options.prefix)
    }

    /// Calls until the answer is not an error that is to be retried.
    pub(crate) async fn call<T, F>(
        &self,
        name: &'static str,
        request: impl Fn() -> F + Send + Sync,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Status>> + Send,
        T: Send,
    {
        loop {
            match timeout(RUN, request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => self.wait_after(name, &status).await?,
                Err(_) => return Err(Failed::Stuck { last: name.into() }),
            }
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// `Final` if the error table says not to retry, `Stuck` if the time is over.
    pub(crate) async fn wait_after(
        &self,
        call: &'static str,
        status: &Status,
    ) -> Result<(), Failed> {
        let error = ClientError::from(status.clone());
        if !error.is_resumable() {
            let reason = reason(status);
            return Err(Failed::Final { call, reason });
        }
        self.check_time(&format!("{call}: {error}"))?;
        let delay = error.retry_delay().unwrap_or_default();
        sleep(delay.clamp(Duration::from_millis(100), Duration::from_millis(500))).await;
        Ok(())
    }

    pub(crate) fn check_time(&self, last: &str) -> Result<(), Failed> {
        if Instant::now() > self.deadline {
            return Err(Failed::Stuck { last: last.into() });
        }
        Ok(())
    }
}

/// The name of the reason, or of the code.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}

/// A record, read from the state store.
async fn record(backends: &Backends, id: &str) -> Option<Upload> {
    let id: UploadId = id.parse().ok()?;
    backends.state.get(&id).await.unwrap()
}

/// The MD5 of [`FILE`], or of its beginning.
pub(crate) fn md5_of(data: &[u8]) -> Md5 {
    if data.len() == FILE.len() {
        *FILE_MD5
    } else {
        Md5::of(data)
    }
}

fn config(directory: &Path, storage: StorageConfig) -> Config {
    let mut config = Config {
        data_dir: directory.join("data"),
        storage: vec![storage],
        ..Config::default()
    };
    config.limits.memory_budget = ByteSize(4 * PART_SIZE * 2);
    config.limits.store_retry_timeout_seconds = RETRY.as_secs();
    config.limits.store_settle_seconds = SETTLE.as_secs();
    config.limits.commit_lease_seconds = 6;
    config.limits.drain_seconds = 1;
    config.sweeper.enabled = false;
    // So that a resume token survives the loss of the state.
    config.resume_tokens.keys = vec![KeyConfig {
        id: "test".into(),
        key: Some("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".into()),
        key_file: None,
    }];
    config
}

fn storage(store: StoreConfig) -> StorageConfig {
    StorageConfig {
        options: StorageOptions {
            id: "media".into(),
            default: true,
            prefix: "kept".into(),
            part_size: ByteSize(5 * MIB),
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
            // Without the question, so that the first put is that of a file.
            integrity: IntegrityChoice::Crc64Nvme,
            tenants: Vec::new(),
        },
        store,
    }
}

/// The same store behind the layer.
fn through(mut store: StoreConfig, layer: &Layer) -> StorageConfig {
    match &mut store {
        StoreConfig::S3(S3Config {
            endpoint,
            public_endpoint,
            ..
        }) => {
            *endpoint = Some(layer.endpoint.parse().unwrap());
            *public_endpoint = Some(layer.public_endpoint.parse().unwrap());
        }
        StoreConfig::Azure(AzureConfig {
            endpoint,
            public_endpoint,
            account,
            ..
        }) => {
            let of_account = |address: &str| Some(format!("{address}/{account}").parse().unwrap());
            *endpoint = of_account(&layer.endpoint);
            *public_endpoint = of_account(&layer.public_endpoint);
        }
    }
    storage(store)
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let ahead = self.0.load(Ordering::Relaxed);
        Timestamp(u64::try_from(since.as_millis()).unwrap() + ahead)
    }
}

// === impl Ahead ===

impl Ahead {
    fn by(time: Duration) -> Self {
        let clock = Self(Arc::default());
        clock.advance(time);
        clock
    }

    fn advance(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap();
        self.0.fetch_add(time, Ordering::Relaxed);
    }
}
