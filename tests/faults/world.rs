//! Stores, clocks, gateways, and uploads in every state.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use upload_gateway::{
    config::{Config, S3Profile, StorageConfig},
    serve::{Backends, connect},
    state::redis::RedisMode,
};
use upload_gateway_core::{
    blobs::{BlobStore, NewObject, Put, Session},
    clock::Clock,
    error::Result,
    gateway::{
        Caller, Chunk, Counts, EdgeLimits, Gateway, Message, Observer, Open, OwnerLimits, Report,
        Settings, Storages, Sweep, SweepReport, Takeover, Target,
    },
    state::StateStore,
    upload::{DigestChoice, FileMetadata, Integrity, MIB, Timestamp, Upload, UploadId},
};

use super::common;

/// Makes one test of each case for each store.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                crate::world::in_time(super::$case(crate::world::embedded().await)).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::s3().await else { return };
                crate::world::in_time(super::$case(world)).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(world) = crate::world::azure().await else { return };
                crate::world::in_time(super::$case(world)).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;

/// The size in bytes of a part.
pub(crate) const PART: usize = 5 * 1024 * 1024;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A time that only the test advances, shown by clocks that differ.
#[derive(Debug, Clone)]
pub(crate) struct TestClock {
    now: Arc<AtomicU64>,
    ahead: Duration,
}

/// One state store, its storages, and their time.
pub(crate) struct World {
    pub(crate) clock: TestClock,
    pub(crate) config: Config,
    pub(crate) backends: Backends,
    /// Whether the store has sessions.
    pub(crate) has_sessions: bool,
    servers: Box<dyn Send + Sync>,
}

/// A stream that a gateway receives.
pub(crate) struct Stream {
    pub(crate) id: UploadId,
    pub(crate) messages: mpsc::UnboundedSender<Result<Message>>,
    counts: watch::Receiver<Counts>,
    task: JoinHandle<Result<Upload>>,
}

pub(crate) async fn embedded() -> World {
    let directory = TempDir::new().unwrap();
    let mut world = embedded_in(directory.path()).await;
    world.servers = Box::new(directory);
    world
}

pub(crate) async fn embedded_in(directory: &Path) -> World {
    let config = Config {
        data_dir: directory.join("data"),
        ..Config::default()
    };
    World::over(config, true, Box::new(())).await
}

pub(crate) async fn s3() -> Option<World> {
    let (redis, s3) = (common::redis().await?, common::s3().await?);
    let config = config(&redis.url, s3.storage(S3Profile::Compatible));
    Some(World::over(config, true, Box::new((redis, s3))).await)
}

/// As [`s3`], with a Redis of its own and its URL.
pub(crate) async fn s3_with_private_redis() -> Option<(World, String)> {
    let ((redis, url), s3) = (common::private_redis(&[])?, common::s3().await?);
    let config = config(&url, s3.storage(S3Profile::Compatible));
    let world = World::over(config, true, Box::new((redis, s3))).await;
    Some((world, url))
}

/// As [`s3`], with a Redis Cluster of its own.
pub(crate) async fn s3_with_cluster() -> Option<World> {
    let (cluster, s3) = (common::redis_cluster()?, common::s3().await?);
    let mut config = config(&cluster.urls[0], s3.storage(S3Profile::Compatible));
    config.redis.mode = RedisMode::Cluster;
    Some(World::over(config, true, Box::new((cluster, s3))).await)
}

pub(crate) async fn azure() -> Option<World> {
    let (redis, azure) = (common::redis().await?, common::azure().await?);
    let config = config(&redis.url, azure.storage());
    Some(World::over(config, false, Box::new((redis, azure))).await)
}

fn config(redis_url: &str, storage: StorageConfig) -> Config {
    Config {
        redis_url: Some(redis_url.parse().unwrap()),
        storage: vec![storage],
        ..Config::default()
    }
}

/// The default times: expiry after a day of idleness, a maximum age of six days.
pub(crate) fn settings() -> Settings {
    Settings {
        memory_budget: 64 * MIB,
        parts_in_flight: 4,
        parts_in_flight_total: 4,
        simd_md5: true,
        max_file_size: None,
        max_message_size: 16 * MIB,
        max_streams: 100,
        min_rate: 0,
        min_rate_window: Duration::from_secs(60),
        idle_timeout: MINUTE,
        stream_age: None,
        store_retry_timeout: Duration::from_secs(10),
        commit_lease: Duration::from_secs(90),
        token_keys: Vec::new(),
        record_keys: Vec::new(),
        rebuilds_per_second: 10,
        max_tags: 16,
        max_tag_size: 64,
        max_open_uploads: 100_000,
        edges: EdgeLimits::default(),
        per_owner: OwnerLimits::default(),
        store_settle: Duration::ZERO,
        upload_expiry: DAY,
        upload_max_age: 6 * DAY,
        keep_complete: None,
        max_record_memory: None,
        keep_aborted: 7 * DAY,
        tombstone: Duration::from_secs(3600),
    }
}

/// A pass that does not wait between its operations.
pub(crate) fn pass() -> Sweep {
    Sweep {
        dry_run: false,
        operations_per_second: 100_000,
        session_age: None,
        interval: None,
    }
}

/// Makes a pass, and checks that no other sweeper is running.
pub(crate) async fn sweep(gateway: &Gateway) -> SweepReport {
    sweep_as(gateway, &pass()).await
}

/// Makes this pass, and checks that no other sweeper is running.
pub(crate) async fn sweep_as(gateway: &Gateway, sweep: &Sweep) -> SweepReport {
    let swept = gateway
        .sweeper
        .sweep(sweep, &CancellationToken::new())
        .await;
    swept.unwrap().expect("no other sweeper runs")
}

/// Runs a case with a time limit.
pub(crate) async fn in_time(case: impl Future<Output = ()>) {
    let limit = Duration::from_secs(180);
    let ended = tokio::time::timeout(limit, Box::pin(case)).await;
    ended.expect("the case ends in time");
}

/// The metadata of a file of this size.
pub(crate) fn file(size: usize) -> FileMetadata {
    FileMetadata {
        file_digest: DigestChoice::Md5,
        file_name: "film.mp4".into(),
        file_size: Some(size as u64),
        ..FileMetadata::default()
    }
}

// === impl TestClock ===

impl TestClock {
    pub(crate) fn advance(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap();
        self.now.fetch_add(time, Ordering::Relaxed);
    }

    /// A clock that stands still before the current time.
    pub(crate) fn before(&self, ago: Duration) -> Self {
        let now = self.now().minus(ago).0;
        Self {
            now: Arc::new(now.into()),
            ahead: Duration::ZERO,
        }
    }

    /// A clock that is ahead by this much.
    pub(crate) fn ahead(&self, ahead: Duration) -> Self {
        Self {
            now: Arc::clone(&self.now),
            ahead,
        }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed)).plus(self.ahead)
    }
}

// === impl World ===

impl World {
    pub(crate) async fn over(
        config: Config,
        has_sessions: bool,
        servers: Box<dyn Send + Sync>,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            clock: TestClock {
                now: Arc::new(u64::try_from(now.as_millis()).unwrap().into()),
                ahead: Duration::ZERO,
            },
            backends: connect(&config).await.unwrap(),
            config,
            has_sessions,
            servers,
        }
    }

    /// Stops what runs inside this process.
    pub(crate) async fn close(self) {
        self.backends.stop().await;
        drop(self.servers);
    }

    pub(crate) fn state(&self) -> &dyn StateStore {
        &*self.backends.state
    }

    pub(crate) fn store(&self) -> Arc<dyn BlobStore> {
        Arc::clone(
            &self
                .backends
                .storages
                .for_caller(&Caller::default(), "")
                .unwrap()
                .store,
        )
    }

    pub(crate) fn prefix(&self) -> String {
        self.backends
            .storages
            .for_caller(&Caller::default(), "")
            .unwrap()
            .prefix
            .clone()
    }

    pub(crate) async fn gateway(&self) -> Arc<Gateway> {
        self.gateway_with(
            settings(),
            self.clock.clone(),
            self.backends.storages.clone(),
        )
        .await
    }

    pub(crate) async fn gateway_with(
        &self,
        settings: Settings,
        clock: TestClock,
        storages: Storages,
    ) -> Arc<Gateway> {
        let state = Arc::clone(&self.backends.state);
        let gateway = Gateway::new(state, storages, settings, Arc::new(clock)).await;
        Arc::new(gateway.unwrap())
    }

    pub(crate) async fn get(&self, id: &UploadId) -> Upload {
        self.state().get(id).await.unwrap().unwrap()
    }

    /// Whether the store still has the parts of an upload; on Azure only time removes them.
    pub(crate) async fn has_session(&self, upload: &Upload) -> bool {
        let Some(id) = &upload.session else {
            return false;
        };
        let session = Session {
            key: &upload.object_key,
            id,
            scope: None,
        };
        self.has_sessions && self.store().list_parts(&session).await.unwrap().is_some()
    }

    /// Begins a session without a record, and returns its name.
    pub(crate) async fn begin(&self, key: &str) -> String {
        self.store().begin(&self.object(key)).await.unwrap().id
    }

    /// The object that an upload will be.
    pub(crate) fn object_of(&self, upload: &Upload) -> NewObject {
        NewObject {
            size: None,
            upload_id: upload.id.clone(),
            integrity: upload.session_integrity(),
            ..self.object(&upload.object_key)
        }
    }

    fn object(&self, key: &str) -> NewObject {
        NewObject {
            size: None,
            key: key.into(),
            mime: "video/mp4".into(),
            upload_id: UploadId::generate(None),
            md5: None,
            crc64nvme: None,
            integrity: Integrity::Md5,
            record: None,
            placement: Box::default(),
        }
    }

    /// An upload whose session a client has begun and reported.
    pub(crate) async fn signed(&self, gateway: &Gateway, size: usize) -> Upload {
        let caller = Caller::default();
        let step = gateway.signing.create_signed(&caller, file(size), "").await;
        let id = step.unwrap().upload_id;
        let upload = self.get(&id).await;
        let session = self.store().begin(&self.object_of(&upload)).await;
        let report = Report {
            resumable_id: Some(session.unwrap().id),
            claims: Vec::new(),
        };
        gateway.signing.report(&caller, &id, report).await.unwrap();
        self.get(&id).await
    }

    /// A small upload whose object a client has put but not reported to the gateway.
    pub(crate) async fn put_as_client(&self, gateway: &Gateway) -> Upload {
        let data = common::bytes(1000);
        let caller = Caller::default();
        let step = gateway.signing.create_signed(&caller, file(data.len()), "");
        let id = step.await.unwrap().upload_id;
        let upload = self.get(&id).await;
        let object = self.object_of(&upload);
        let put = self.store().put_object(&object, data.into()).await;
        assert!(matches!(put.unwrap(), Put::Stored(_)));
        upload
    }

    /// Opens a stream that sends this much of a file of two parts and one byte.
    pub(crate) async fn stream(&self, gateway: &Arc<Gateway>, sent: usize) -> Stream {
        let (messages, queue) = mpsc::unbounded_channel();
        let (opened, id) = oneshot::channel();
        let (sender, mut counts) = watch::channel(Counts::default());
        let observer = Observer::new(opened, sender);
        let gateway = Arc::clone(gateway);
        let task = tokio::spawn(async move {
            let mut queue = UnboundedReceiverStream::new(queue);
            let caller = Caller::default();
            gateway
                .streams
                .receive(
                    &caller,
                    gateway.streams.memory(&caller),
                    &mut queue,
                    observer,
                )
                .await
        });
        let target = Target::File {
            file: file(2 * PART + 1),
            storage_id: String::new(),
        };
        let open = Message::Open(Open {
            target,
            restart: false,
            takeover: Takeover::Force,
            resume_token: String::new(),
        });
        messages.send(Ok(open)).unwrap();
        let chunk = Message::Chunk(Chunk {
            offset: 0,
            data: Bytes::from(common::bytes(sent)),
            crc32c: None,
        });
        messages.send(Ok(chunk)).unwrap();
        let id = id.await.unwrap().id;
        let whole = (sent / PART * PART) as u64;
        counts
            .wait_for(|counts| counts.committed_size >= whole)
            .await
            .unwrap();
        Stream {
            id,
            messages,
            counts,
            task,
        }
    }

    /// An upload of which a stream has sent this much before it broke.
    pub(crate) async fn interrupted(&self, gateway: &Arc<Gateway>, sent: usize) -> Upload {
        let stream = self.stream(gateway, sent).await;
        let id = stream.id.clone();
        stream.end().await.unwrap_err();
        self.get(&id).await
    }
}

// === impl Stream ===

impl Stream {
    /// The committed size.
    pub(crate) fn committed(&self) -> u64 {
        self.counts.borrow().committed_size
    }

    /// Half-closes and waits for the end.
    pub(crate) async fn end(self) -> Result<Upload> {
        drop(self.messages);
        self.task.await.unwrap()
    }
}
