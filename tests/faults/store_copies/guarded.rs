//! Stores behind a guard.

use tempfile::TempDir;
use upload_gateway::{
    config::{Config, S3Config, S3Profile, StorageConfig, StoreConfig},
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
};

use super::guard::Guard;
use crate::{common, world::World};

/// A store behind a guard.
pub(super) struct Guarded {
    pub(super) world: World,
    pub(super) guard: Guard,
}

/// The embedded store.
pub(super) async fn s3() -> Guarded {
    let directory = TempDir::new().unwrap();
    let server = EmbeddedS3::start(EmbeddedS3Config {
        directory: directory.path().join("blobs"),
        listen: ([127, 0, 0, 1], 0).into(),
        bucket: "media".into(),
        access_key_id: "development".into(),
        secret_access_key: "development-secret".into(),
        ..EmbeddedS3Config::default()
    });
    let server = server.await.unwrap();
    let guard = Guard::start(&server.endpoint()).await;
    let storage = common::storage(StoreConfig::S3(S3Config {
        region: Some("us-east-1".into()),
        endpoint: Some(guard.endpoint.parse().unwrap()),
        profile: Some(S3Profile::Compatible),
        access_key_id: Some("development".into()),
        secret_access_key: Some("development-secret".into()),
        ..S3Config::new("media")
    }));
    let world = world(storage, (server, directory)).await;
    Guarded { world, guard }
}

/// The Azure in memory, which copies blocks.
pub(super) async fn azure() -> Guarded {
    let directory = TempDir::new().unwrap();
    let (server, mut account) = common::memory_azure().await;
    let address = account.endpoint.strip_suffix(account.account).unwrap();
    let guard = Guard::start(address.trim_end_matches('/')).await;
    account.endpoint = format!("{}/{}", guard.endpoint, account.account);
    let world = world(account.storage(), (server, directory)).await;
    Guarded { world, guard }
}

/// A state store, and two storages in one store.
async fn world<S: Send + Sync + 'static>(
    mut storage: StorageConfig,
    (server, directory): (S, TempDir),
) -> World {
    storage.options.default = true;
    let mut other = storage.clone();
    other.options.id = "archive".into();
    other.options.default = false;
    let has_sessions = matches!(storage.store, StoreConfig::S3(_));
    let config = Config {
        data_dir: directory.path().join("data"),
        storage: vec![storage, other],
        ..Config::default()
    };
    World::over(config, has_sessions, Box::new((server, directory))).await
}
