//! Writes to Redis that count once replicas have them.

use std::time::Duration;

use upload_gateway::{
    error::Reason,
    state::{
        Creation, PartRecord, StateStore,
        redis::{Redis, RedisConfig},
    },
};

use super::{common, config, redis_outages::hold, samples::*};

/// A store that wants one replica to have each write.
async fn waiting(url: &str) -> Redis {
    Redis::connect(&RedisConfig {
        wait_replicas: 1,
        wait_timeout: Duration::from_millis(100),
        patience: Duration::from_millis(500),
        ..config([url.to_owned()])
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_write_without_enough_replicas_does_not_count() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = waiting(&url).await;
    let upload = upload(&owner());
    let failure = store.create(&upload).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::StateUnavailable);
    assert!(failure.is_retryable());
    // What is only read waits for nobody.
    assert_eq!(get(&store, &upload.id).await, upload);
}

#[tokio::test]
async fn a_write_that_counts_is_on_the_replica() {
    let Some((primary, url)) = common::private_redis(&[]) else {
        return;
    };
    let port = primary.port().to_string();
    let follow = ["--replicaof", "127.0.0.1", &port];
    let (_replica, replica_url) = common::private_redis(&follow).unwrap();
    let store = waiting(&url).await;
    let upload = upload(&owner());
    // The replica joins within a few seconds.
    let created = hold(|| store.create(&upload)).await;
    assert_eq!(created, Creation::Created);
    let parts = [part(1), part(2)];
    let writer = upload.writer.unwrap();
    let recorded = hold(|| store.record_parts(&upload.id, writer, &parts, times())).await;
    assert_eq!(recorded, PartRecord::Recorded { committed: 2 });
    let replica = Redis::connect(&config([replica_url])).await.unwrap();
    assert_eq!(get(&replica, &upload.id).await.parts.committed(), 2);
}
