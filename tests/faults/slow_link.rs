//! A slow link to a store: requests take longer than the time-out, and their bytes move all the time.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::Instant;
use upload_gateway::{
    blobs::s3::{Profile, S3Config, S3Store},
    embedded_s3::{EmbeddedS3, EmbeddedS3Config},
};
use upload_gateway_core::{
    blobs::BlobStore,
    gateway::{Storage, Storages},
    upload::PART_SIZE,
};

use crate::{
    common::SlowLink,
    world::{self, PART, in_time, settings},
};

/// Bytes per second: two parts at the same time need 10 seconds.
const RATE: u32 = 1_000_000;

/// The longest time in which no byte moves.
const SILENCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn parts_that_share_a_slow_link_are_committed() {
    in_time(async {
        let directory = TempDir::new().unwrap();
        let server = EmbeddedS3::start(EmbeddedS3Config {
            directory: directory.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            bucket: "media".into(),
            access_key_id: "development".into(),
            secret_access_key: "development-secret".into(),
            ..EmbeddedS3Config::default()
        });
        let server = server.await.unwrap();
        let address = server.endpoint().replace("http://", "");
        let link = SlowLink::start(address.trim_end_matches('/').parse().unwrap(), RATE);
        let store = S3Store::connect(S3Config {
            region: Some("us-east-1".into()),
            endpoint: Some(format!("http://{}", link.address).parse().unwrap()),
            profile: Some(Profile::Compatible),
            access_key_id: Some("development".into()),
            secret_access_key: Some("development-secret".into()),
            operation_timeout: SILENCE,
            ..S3Config::new("media")
        });
        let store: Arc<dyn BlobStore> = Arc::new(store.await.unwrap());
        let storage = Storage::new("far", store, "", PART_SIZE);
        let storages = Storages::new(vec![storage], "far").unwrap();
        let world = world::embedded().await;
        let gateway = world.gateway_with(settings(), world.clock.clone(), storages);
        let gateway = gateway.await;

        let begun = Instant::now();
        let upload = world.interrupted(&gateway, 2 * PART).await;
        assert_eq!(upload.committed_size(), 2 * PART_SIZE);
        assert!(begun.elapsed() > 3 * SILENCE, "{:?}", begun.elapsed());
        server.stop().await;
        world.close().await;
    })
    .await;
}
