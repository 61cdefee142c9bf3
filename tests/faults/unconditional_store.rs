//! A store that cannot put only if there is no object: small files go to it as the only part of a session.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{TryStreamExt, stream, stream::BoxStream};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use upload_gateway::{config::Config, serve::connect};
use upload_gateway_core::{
    blobs::{
        BlobStore, Commit, NewObject, NewPart, Put, Session, SessionPage, StoredObject, StoredPart,
        sign::{SignedRequest, Signer, ToSign},
    },
    error::{Error, Kind, Reason, Result},
    gateway::{
        Caller, Chunk, Clock, Counts, Finish, Gateway, Message, Observer, Open, Settings, Storage,
        Storages, Takeover, Target,
    },
    upload::{
        FileMetadata, MIB, Md5, PART_SIZE, Part, Phase, StoreKind, StoreLimits, Timestamp,
        WriterTag,
    },
};

/// The embedded store, but for its conditional put.
#[derive(Debug)]
struct Unconditional(Arc<dyn BlobStore>);

#[async_trait]
impl Signer for Unconditional {
    async fn sign(&self, request: &ToSign<'_>, now: Timestamp) -> Result<SignedRequest> {
        self.0.sign(request, now).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlobStore for Unconditional {
    fn kind(&self) -> StoreKind {
        self.0.kind()
    }

    fn bucket(&self) -> &str {
        self.0.bucket()
    }

    fn limits(&self) -> StoreLimits {
        self.0.limits()
    }

    async fn begin(&self, object: &NewObject) -> Result<String> {
        self.0.begin(object).await
    }

    async fn put_part(&self, session: &Session<'_>, part: NewPart) -> Result<String> {
        self.0.put_part(session, part).await
    }

    async fn list_parts(&self, session: &Session<'_>) -> Result<Option<Vec<StoredPart>>> {
        self.0.list_parts(session).await
    }

    fn writer(&self, receipt: &str) -> Option<WriterTag> {
        self.0.writer(receipt)
    }

    async fn commit(
        &self,
        session: &Session<'_>,
        object: &NewObject,
        parts: &[Part],
    ) -> Result<Commit> {
        self.0.commit(session, object, parts).await
    }

    async fn abort(&self, session: &Session<'_>) -> Result<()> {
        self.0.abort(session).await
    }

    async fn list_sessions(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Option<SessionPage>> {
        self.0.list_sessions(prefix, after).await
    }

    async fn put_object(&self, _object: &NewObject, _body: Bytes) -> Result<Put> {
        Err(Error::new(
            Kind::Unimplemented,
            Reason::NotOffered,
            "no conditional put",
        ))
    }

    async fn composition(&self, key: &str) -> Result<Option<Vec<StoredPart>>> {
        self.0.composition(key).await
    }

    async fn head(&self, key: &str) -> Result<Option<StoredObject>> {
        self.0.head(key).await
    }

    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.0.read(key, range).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
}

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp(1)
    }
}

fn settings() -> Settings {
    Settings {
        memory_budget: 64 * MIB,
        parts_in_flight: 4,
        parts_in_flight_total: 4,
        max_file_size: None,
        max_message_size: 4 * MIB,
        max_streams: 100,
        min_rate: 0,
        min_rate_window: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(10),
        store_retry_timeout: Duration::from_secs(10),
        commit_lease: Duration::from_secs(90),
        token_keys: Vec::new(),
        upload_expiry: Duration::from_secs(3600),
        upload_max_age: Duration::from_secs(6 * 86_400),
    }
}

#[tokio::test]
async fn a_small_file_goes_as_the_only_part_of_a_session() {
    let directory = TempDir::new().unwrap();
    let config = Config {
        data_dir: directory.path().join("data"),
        ..Config::default()
    };
    let backends = connect(&config).await.unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(Unconditional(Arc::clone(
        &backends.storages.get("").unwrap().store,
    )));
    let storage = Storage::new("plain", Arc::clone(&store), "", PART_SIZE);
    let storages = Storages::new(vec![storage], "plain").unwrap();
    let state = Arc::clone(&backends.state);
    let gateway = Gateway::new(state, storages, settings(), Arc::new(Stopped)).await;
    let gateway = Arc::new(gateway.unwrap());
    for content in [&b""[..], b"a small file"] {
        let file = FileMetadata {
            file_name: "a.bin".into(),
            ..FileMetadata::default()
        };
        let target = Target::File {
            file,
            storage_id: String::new(),
        };
        let messages = [
            Message::Open(Open {
                target,
                resume_token: String::new(),
                restart: false,
                takeover: Takeover::Force,
            }),
            Message::Chunk(Chunk {
                offset: 0,
                data: Bytes::from_static(content),
                crc32c: None,
            }),
            Message::Finish(Finish {
                file_size: None,
                file_id: Some(Md5::of(content)),
            }),
        ];
        let (opened, _opened) = oneshot::channel();
        let (counts, _counts) = watch::channel(Counts::default());
        let observer = Observer { opened, counts };
        let mut messages = stream::iter(messages.map(Ok));
        let upload = Arc::clone(&gateway)
            .receive(&Caller::default(), &mut messages, observer)
            .await
            .unwrap();
        assert_eq!(upload.phase, Phase::Complete);
        assert!(upload.session.is_some());
        let object = upload.object.unwrap();
        assert!(object.etag.ends_with("-1"), "{}", object.etag);
        assert_eq!(object.md5, Some(Md5::of(content)));
        let read: Vec<Bytes> = store
            .read(&object.key, None)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(read.concat(), content);
    }
    backends.stop().await;
}
