//! The stores against which each case runs.

use futures::TryStreamExt;
use tempfile::TempDir;
use upload_gateway::{
    config::{Config, S3Profile, StorageConfig},
    serve::connect,
};
use upload_gateway_client::proto::v1::Upload;
use upload_gateway_core::{
    blobs::{BlobStore, NewPart, Session},
    gateway::IntegrityChoice,
};

use super::{self as common, TestGateway};

/// Makes one test of each case for each store, with Redis as the state store of the last two.
macro_rules! for_each_store {
    ($($case:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $case() {
                super::$case(crate::common::stores::embedded()).await;
            }
        )* }
        mod s3 { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::common::stores::s3().await else { return };
                super::$case(stores).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::common::stores::azure().await else { return };
                super::$case(stores).await;
            }
        )* }
    };
}

pub(crate) use for_each_store;

/// The same, also with stores that get MD5s.
macro_rules! for_each_digest {
    ($($case:ident),* $(,)?) => {
        crate::common::stores::for_each_store!($($case),*);
        mod s3_md5 { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::common::stores::s3().await else { return };
                super::$case(stores.with_md5()).await;
            }
        )* }
        mod azure_md5 { $(
            #[tokio::test]
            async fn $case() {
                let Some(stores) = crate::common::stores::azure().await else { return };
                super::$case(stores.with_md5()).await;
            }
        )* }
    };
}

pub(crate) use for_each_digest;

/// A state store and a storage, until it is dropped.
pub(crate) struct Stores {
    pub(crate) config: Config,
    /// Whether the store has sessions that clients begin.
    pub(crate) has_sessions: bool,
    _backends: Box<dyn Send + Sync>,
}

pub(crate) fn embedded() -> Stores {
    let directory = TempDir::new().unwrap();
    Stores {
        config: quick(Config {
            data_dir: directory.path().join("data"),
            ..Config::default()
        }),
        has_sessions: true,
        _backends: Box::new(directory),
    }
}

pub(crate) async fn s3() -> Option<Stores> {
    let (redis, s3) = (common::redis().await?, common::s3().await?);
    Some(Stores {
        config: config(&redis.url, s3.storage(S3Profile::Compatible)),
        has_sessions: true,
        _backends: Box::new((redis, s3)),
    })
}

pub(crate) async fn azure() -> Option<Stores> {
    let (redis, azure) = (common::redis().await?, common::azure().await?);
    Some(Stores {
        config: config(&redis.url, azure.storage()),
        has_sessions: false,
        _backends: Box::new((redis, azure)),
    })
}

fn config(redis_url: &str, storage: StorageConfig) -> Config {
    quick(Config {
        redis_url: Some(redis_url.parse().unwrap()),
        storage: vec![storage],
        ..Config::default()
    })
}

/// With a second observation and a sweeper that a test can wait for.
fn quick(mut config: Config) -> Config {
    config.limits.store_settle_seconds = 1;
    config.sweeper.interval_seconds = 1;
    config
}

// === impl Stores ===

impl Stores {
    /// The same, with MD5s for what the gateway puts.
    pub(crate) fn with_md5(mut self) -> Self {
        for storage in &mut self.config.storage {
            storage.options.integrity = IntegrityChoice::Md5;
        }
        self
    }

    pub(crate) async fn gateway(&self) -> TestGateway {
        TestGateway::over(self.config.clone()).await
    }

    /// Another gateway over the same stores; the embedded ones can only be open in one, so there it is `gateway`
    /// itself.
    pub(crate) async fn beside<'a>(&self, gateway: &'a TestGateway) -> Beside<'a> {
        if self.config.storage.is_empty() {
            return Beside::Same(gateway);
        }
        Beside::Another(Box::new(self.gateway().await))
    }
}

/// A gateway that runs beside another one.
pub(crate) enum Beside<'a> {
    Same(&'a TestGateway),
    Another(Box<TestGateway>),
}

impl std::ops::Deref for Beside<'_> {
    type Target = TestGateway;

    fn deref(&self) -> &TestGateway {
        match self {
            Self::Same(gateway) => gateway,
            Self::Another(gateway) => gateway,
        }
    }
}

/// The stored bytes of a finished upload.
pub(crate) async fn read(gateway: &TestGateway, upload: &Upload) -> Vec<u8> {
    let object = upload.object.as_ref().expect("a finished upload");
    if gateway.config.storage.is_empty() {
        return gateway.read(upload).await;
    }
    let pieces: Vec<bytes::Bytes> = store(gateway)
        .await
        .read(&object.key, None, None)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    pieces.concat()
}

/// The key of an upload's object.
pub(crate) fn key(gateway: &TestGateway, id: &str, name: &str) -> String {
    match gateway.config.storage.first() {
        Some(storage) => format!("{}/{id}/{name}", storage.options.prefix),
        None => format!("{id}/{name}"),
    }
}

pub(crate) async fn has_object(gateway: &TestGateway, key: &str) -> bool {
    if gateway.config.storage.is_empty() {
        let head = gateway.s3().head_object().bucket("uploads").key(key);
        return head.send().await.is_ok();
    }
    store(gateway).await.head(key).await.unwrap().is_some()
}

/// Ends a session without the gateway.
pub(crate) async fn abort(gateway: &TestGateway, upload: &Upload, key: &str) {
    let session = Session {
        key,
        id: &upload.resumable_id,
        scope: None,
    };
    if gateway.config.storage.is_empty() {
        let aborted = gateway
            .s3()
            .abort_multipart_upload()
            .bucket("uploads")
            .key(key)
            .upload_id(session.id);
        aborted.send().await.unwrap();
        return;
    }
    store(gateway).await.abort(&session).await.unwrap();
}

/// Puts a part like a stream that is killed before it records the part.
pub(crate) async fn put_unrecorded(gateway: &TestGateway, session: &Session<'_>, part: NewPart) {
    if gateway.config.storage.is_empty() {
        let put = gateway
            .s3()
            .upload_part()
            .bucket("uploads")
            .key(session.key)
            .upload_id(session.id)
            .part_number(i32::try_from(part.number).unwrap())
            .body(part.body.into());
        put.send().await.unwrap();
        return;
    }
    store(gateway).await.put_part(session, part).await.unwrap();
}

async fn store(gateway: &TestGateway) -> std::sync::Arc<dyn BlobStore> {
    let backends = connect(&gateway.config).await.unwrap();
    std::sync::Arc::clone(
        &backends
            .storages
            .for_caller(&upload_gateway_core::gateway::Caller::default(), "")
            .unwrap()
            .store,
    )
}
