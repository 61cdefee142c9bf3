//! A slow store: meanwhile others write, and time passes.

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{stream, stream::BoxStream};
use tempfile::TempDir;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use upload_gateway::{
    config::Config,
    serve::{Backends, connect},
};
use upload_gateway_core::{
    blobs::{
        Begun, BlobStore, Capabilities, Commit, CopyStore, MultipartStore, NewObject, NewPart,
        ObjectPage, ObjectStore, Put, Session, SessionPage, StoredObject, StoredPart,
        sign::{SignedRequest, Signer, ToSign},
    },
    clock::Clock,
    error::{Error, Result},
    gateway::{
        Caller, Chunk, Counts, Finish, Gateway, Message, Next, Observer, Open, Report, Settings,
        Storage, Storages, Takeover, Target,
    },
    upload::{
        Claim, FileMetadata, MIB, Md5, PART_SIZE, Part, Phase, StoreKind, StoreLimits, Timestamp,
        Upload, UploadId, WriterTag,
    },
};

/// The embedded store, slowed down.
#[derive(Debug)]
struct Slow {
    store: Arc<dyn BlobStore>,
    looks: AtomicUsize,
    /// Each of the first HEAD calls reports that it has begun, and waits for permission to continue.
    begun: Vec<Semaphore>,
    let_go: Vec<Semaphore>,
    /// Each part waits for permission.
    parts: Semaphore,
    /// The time of the first signature: its credentials have expired then, and later ones are new.
    renewed_after: OnceLock<Timestamp>,
}

impl Slow {
    /// Over the embedded store, with this number of slow HEAD calls.
    fn over(backends: &Backends, looks: usize) -> Arc<Self> {
        let gates = || (0..looks).map(|_| Semaphore::new(0)).collect();
        Arc::new(Self {
            store: Arc::clone(
                &backends
                    .storages
                    .for_caller(&Caller::default(), "")
                    .unwrap()
                    .store,
            ),
            looks: AtomicUsize::new(0),
            begun: gates(),
            let_go: gates(),
            parts: Semaphore::new(Semaphore::MAX_PERMITS),
            renewed_after: OnceLock::new(),
        })
    }

    async fn has_begun(&self, look: usize) {
        self.begun[look].acquire().await.unwrap().forget();
    }

    fn let_go(&self, look: usize) {
        self.let_go[look].add_permits(1);
    }
}

#[async_trait]
impl Signer for Slow {
    async fn sign(&self, request: &ToSign<'_>, clock: &dyn Clock) -> Result<SignedRequest> {
        let now = clock.now();
        if now <= *self.renewed_after.get_or_init(|| now) {
            return Err(Error::store_unavailable("the credentials have ended"));
        }
        self.store.sign(request, clock).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlobStore for Slow {
    fn kind(&self) -> StoreKind {
        self.store.kind()
    }

    fn bucket(&self) -> &str {
        self.store.bucket()
    }

    fn limits(&self) -> StoreLimits {
        self.store.limits()
    }

    fn renew_credentials(&self) {
        self.store.renew_credentials();
    }

    fn credentials_expire_at(&self) -> Option<Timestamp> {
        self.store.credentials_expire_at()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn check(&self) -> Result<()> {
        self.store.check().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Slow {
    async fn put_object(&self, object: &NewObject, body: Bytes) -> Result<Put> {
        self.store.put_object(object, body).await
    }

    async fn composition(&self, key: &str) -> Result<Option<Vec<StoredPart>>> {
        self.store.composition(key).await
    }

    async fn head(&self, key: &str) -> Result<Option<StoredObject>> {
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        if let (Some(begun), Some(let_go)) = (self.begun.get(look), self.let_go.get(look)) {
            begun.add_permits(1);
            let_go.acquire().await.unwrap().forget();
        }
        self.store.head(key).await
    }

    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.store.read(key, range, etag).await
    }

    async fn put_placement(
        &self,
        object: &NewObject,
        found: &StoredObject,
    ) -> Result<StoredObject> {
        self.store.put_placement(object, found).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.store.delete(key).await
    }

    async fn replace(&self, object: &NewObject, body: Bytes) -> Result<()> {
        self.store.replace(object, body).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ObjectPage> {
        self.store.list(prefix, after).await
    }
}

impl CopyStore for Slow {}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartStore for Slow {
    async fn begin(&self, object: &NewObject) -> Result<Begun> {
        self.store.begin(object).await
    }

    async fn takes_plain_parts(&self, object: &NewObject) -> Result<bool> {
        self.store.takes_plain_parts(object).await
    }

    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String> {
        let _permit = self.parts.acquire().await.unwrap();
        self.store.put_part(session, part).await
    }

    async fn list_parts(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>> {
        self.store.list_parts(session).await
    }

    fn writer(&self, receipt: &str) -> Option<WriterTag> {
        self.store.writer(receipt)
    }

    async fn commit(
        &self,
        session: &Session<'_>,
        object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit> {
        self.store.commit(session, object, parts).await
    }

    async fn abort(&self, session: &Session<'_>) -> Result<()> {
        self.store.abort(session).await
    }

    async fn list_sessions(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Option<SessionPage>> {
        self.store.list_sessions(prefix, after).await
    }
}

/// A clock that advances with each reading.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

async fn backends(directory: &TempDir) -> Backends {
    let config = Config {
        data_dir: directory.path().join("data"),
        ..Config::default()
    };
    connect(&config).await.unwrap()
}

async fn gateway(backends: &Backends, store: &Arc<Slow>) -> Arc<Gateway> {
    let storage = Storage::new("slow", Arc::clone(store) as _, "", PART_SIZE);
    let storages = Storages::new(vec![storage], "slow").unwrap();
    let state = Arc::clone(&backends.state);
    let clock = Arc::new(Ticking(AtomicU64::new(1_764_122_720_000)));
    let gateway = Gateway::new(state, storages, settings(), clock).await;
    Arc::new(gateway.unwrap())
}

fn settings() -> Settings {
    Settings {
        idle_timeout: Duration::from_secs(10),
        upload_expiry: Duration::from_secs(3600),
        upload_max_age: Duration::from_secs(3600),
        ..crate::world::settings()
    }
}

/// Streams a whole file into an upload.
async fn send(gateway: &Arc<Gateway>, id: &UploadId, file: &'static [u8]) -> Result<Upload> {
    let messages = [
        Message::Open(Open {
            target: Target::Upload(id.clone()),
            resume_token: String::new(),
            restart: false,
            takeover: Takeover::Force,
        }),
        Message::Chunk(Chunk {
            offset: 0,
            data: Bytes::from_static(file),
            crc32c: None,
        }),
        Message::Finish(Finish {
            file_size: None,
            file_id: None,
            crc64nvme: None,
        }),
    ];
    let (opened, _opened) = oneshot::channel();
    let (counts, _counts) = watch::channel(Counts::default());
    let mut messages = stream::iter(messages.map(Ok));
    gateway
        .streams
        .receive(
            &Caller::default(),
            gateway.streams.memory(&Caller::default()),
            &mut messages,
            Observer::new(opened, counts),
        )
        .await
}

#[tokio::test]
async fn a_completion_that_began_before_the_parts_leaves_the_object_of_a_stream() {
    static FILE: [u8; 6 << 20] = [7; 6 << 20];
    let directory = TempDir::new().unwrap();
    let backends = backends(&directory).await;
    let store = Slow::over(&backends, 2);
    let gateway = gateway(&backends, &store).await;
    let caller = Caller::default();

    // A client announces other bytes, and never sends them.
    let file = FileMetadata {
        file_name: "a.bin".into(),
        file_size: Some(6 * MIB),
        ..FileMetadata::default()
    };
    let step = gateway
        .signing
        .create_signed(&caller, file, "")
        .await
        .unwrap();
    let id = step.upload_id;
    let claims = [1, 2].map(|number| Claim {
        number,
        md5: Some(Md5::of(b"other bytes")),
        signed_for: None,
    });
    let report = Report {
        resumable_id: None,
        claims: claims.to_vec(),
    };
    let reported = gateway
        .signing
        .sign_next(&caller, &id, report, Next::Nothing);
    reported.await.unwrap();

    let completing = tokio::spawn({
        let (gateway, id) = (Arc::clone(&gateway), id.clone());
        async move {
            gateway
                .signing
                .complete_upload(&Caller::default(), &id)
                .await
        }
    });
    store.has_begun(0).await;
    let streaming = tokio::spawn({
        let (gateway, id) = (Arc::clone(&gateway), id.clone());
        async move { send(&gateway, &id, &FILE).await }
    });
    // The store has made the object, and the stream is about to verify it.
    store.has_begun(1).await;
    store.let_go(0);
    let completed = completing.await.unwrap();
    store.let_go(1);
    let sent = streaming.await.unwrap().unwrap();
    assert_eq!(sent.phase, Phase::Complete);
    assert_eq!(
        completed.unwrap().object.unwrap().etag,
        sent.object.unwrap().etag
    );
    let found = store.store.head(&sent.object_key).await.unwrap();
    assert_eq!(found.unwrap().size, 6 * MIB);
    backends.stop().await;
}

#[tokio::test]
async fn each_attempt_is_signed_for_its_own_time() {
    let directory = TempDir::new().unwrap();
    let backends = backends(&directory).await;
    let store = Slow::over(&backends, 0);
    let gateway = gateway(&backends, &store).await;
    let file = FileMetadata {
        file_name: "a.bin".into(),
        file_size: Some(7),
        ..FileMetadata::default()
    };
    let step = gateway
        .signing
        .create_signed(&Caller::default(), file, "")
        .await;
    assert!(step.unwrap().request.url.contains("X-Amz-Signature="));
    backends.stop().await;
}

/// Opens a stream for a file of two parts, which runs in `streams`. Its messages are sent with what is returned.
async fn open_stream(
    gateway: &Arc<Gateway>,
    streams: &mut JoinSet<Result<Upload>>,
) -> mpsc::UnboundedSender<Result<Message>> {
    let file = FileMetadata {
        file_name: "a.bin".into(),
        file_size: Some(2 * PART_SIZE),
        ..FileMetadata::default()
    };
    let open = Message::Open(Open {
        target: Target::File {
            file,
            storage_id: String::new(),
        },
        resume_token: String::new(),
        restart: false,
        takeover: Takeover::Force,
    });
    let (messages, receiver) = mpsc::unbounded_channel();
    messages.send(Ok(open)).unwrap();
    let (opened, is_open) = oneshot::channel();
    let gateway = Arc::clone(gateway);
    streams.spawn(async move {
        let caller = Caller::default();
        let (counts, _counts) = watch::channel(Counts::default());
        let memory = gateway.streams.memory(&caller);
        let mut messages = UnboundedReceiverStream::new(receiver);
        let observer = Observer::new(opened, counts);
        gateway
            .streams
            .receive(&caller, memory, &mut messages, observer)
            .await
    });
    is_open.await.unwrap();
    messages
}

#[tokio::test]
async fn few_parts_are_in_memory_until_the_store_is_slow() {
    const STREAMS: usize = 6;
    static PART: [u8; 5 << 20] = [7; 5 << 20];
    let directory = TempDir::new().unwrap();
    let backends = backends(&directory).await;
    let store = Slow::over(&backends, 0);
    store.parts.forget_permits(Semaphore::MAX_PERMITS);
    let gateway = gateway(&backends, &store).await;
    let mut streams = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..STREAMS {
        senders.push(open_stream(&gateway, &mut streams).await);
    }

    tokio::time::pause();
    for messages in &senders {
        let chunk = Message::Chunk(Chunk {
            offset: 0,
            data: Bytes::from_static(&PART),
            crc32c: None,
        });
        messages.send(Ok(chunk)).unwrap();
    }
    sleep(Duration::from_millis(200)).await;
    let reserved = || gateway.load().reserved;
    assert_eq!(reserved(), 5 * PART_SIZE);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(reserved(), STREAMS as u64 * PART_SIZE);

    tokio::time::resume();
    streams.shutdown().await;
    backends.stop().await;
}
