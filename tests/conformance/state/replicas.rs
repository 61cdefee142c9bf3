//! Writes to Redis that succeed only if replicas have them.

use std::time::Duration;

use upload_gateway::state::redis::{Redis, RedisConfig, RedisMode};
use upload_gateway_core::{
    error::{Error, Reason},
    state::{Creation, PartRecord, PartStore, RecordStore, Update},
    upload::{Phase, Upload},
};

use super::{common, config, redis_outages::retry, samples::*};

/// A store that requires one replica to have each write.
async fn waiting(url: &str) -> Redis {
    waiting_as(RedisMode::Single, vec![url.to_owned()]).await
}

async fn waiting_as(mode: RedisMode, urls: Vec<String>) -> Redis {
    let is_sentinel = mode == RedisMode::Sentinel;
    Redis::connect(&RedisConfig {
        mode,
        service_name: is_sentinel.then(|| common::SENTINEL_SERVICE.to_owned()),
        wait_replicas: 1,
        wait_milliseconds: 100,
        call_timeout: Duration::from_millis(500),
        ..config(urls)
    })
    .await
    .unwrap()
}

/// Checks that a write fails as if Redis were unavailable.
fn does_not_succeed<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let failure = answer.unwrap_err();
    assert_eq!(failure.reason(), Reason::StateUnavailable);
    assert!(failure.is_retryable());
}

#[tokio::test]
async fn a_write_without_enough_replicas_does_not_succeed() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = waiting(&url).await;
    let upload = upload(&owner());
    does_not_succeed(store.create(&upload, u64::MAX).await);
    // Reads do not wait for replicas.
    assert_eq!(get(&store, &upload.id).await, upload);
}

#[tokio::test]
async fn a_write_that_succeeded_is_on_the_replica() {
    let Some((primary, url)) = common::private_redis(&[]) else {
        return;
    };
    let port = primary.port().to_string();
    let follow = ["--replicaof", "127.0.0.1", &port];
    let (_replica, replica_url) = common::private_redis(&follow).unwrap();
    let store = waiting(&url).await;
    let upload = upload(&owner());
    // The replica joins within a few seconds.
    let created = retry(|| store.create(&upload, u64::MAX)).await;
    assert_eq!(created, Creation::Created);
    let parts = [part(1), part(2)];
    let writer = upload.writer.unwrap();
    let recorded = retry(|| store.record_parts(&upload.id, writer, 0, &parts, times())).await;
    assert_eq!(recorded, PartRecord::Recorded { committed: 2 });
    let replica = Redis::connect(&config([replica_url])).await.unwrap();
    assert_eq!(get(&replica, &upload.id).await.parts.committed(), 2);
}

/// A repetition from another connection does not succeed either: each one repeats the write.
#[tokio::test]
async fn a_repeated_write_without_enough_replicas_does_not_succeed() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let plain = Redis::connect(&config([url.clone()])).await.unwrap();
    let mut upload = upload(&owner());
    create(&plain, &upload).await;
    does_not_succeed(waiting(&url).await.create(&upload, u64::MAX).await);
    upload.phase = Phase::Aborted;
    assert_eq!(
        plain.update(&upload, upload.writer).await.unwrap(),
        Update::Updated(2)
    );
    does_not_succeed(waiting(&url).await.update(&upload, upload.writer).await);
}

#[tokio::test]
async fn a_write_through_sentinels_waits_for_the_replica() {
    let Some(mut sentinels) = common::redis_sentinels() else {
        return;
    };
    let store = waiting_as(RedisMode::Sentinel, sentinels.urls.clone()).await;
    let upload = upload(&owner());
    let created = retry(|| store.create(&upload, u64::MAX)).await;
    assert_eq!(created, Creation::Created);
    let url = format!("redis://127.0.0.1:{}", sentinels.replica.port());
    let replica = Redis::connect(&config([url])).await.unwrap();
    assert_eq!(get(&replica, &upload.id).await, upload);
    sentinels.replica.pause();
    let parts = [part(1)];
    does_not_succeed(
        store
            .record_parts(&upload.id, writer(1), 0, &parts, times())
            .await,
    );
    sentinels.replica.resume();
    let outcome = retry(|| store.record_parts(&upload.id, writer(1), 0, &parts, times())).await;
    assert_eq!(outcome, PartRecord::Recorded { committed: 1 });
    // A write that succeeded is there after a fail-over. The next write then finds no replica.
    sentinels.fail_over();
    let known = retry(|| store.get(&upload.id)).await.unwrap();
    assert_eq!(known.parts.committed(), 1);
    does_not_succeed(
        store
            .record_parts(&upload.id, writer(1), 0, &[part(2)], times())
            .await,
    );
}

/// The write waits for the node of the upload's slot, and for no other.
#[tokio::test]
async fn a_write_to_a_cluster_waits_for_the_replica_of_its_own_node() {
    let Some(cluster) = common::redis_cluster() else {
        return;
    };
    let replica = cluster.replica_of(0);
    let store = waiting_as(RedisMode::Cluster, cluster.urls.clone()).await;
    // The first node has a third of the slots.
    let uploads: Vec<_> = (0..30).map(|_| upload(&owner())).collect();
    let is_first = |upload: &Upload| cluster.slot_of(upload.id.tag()) <= 5460;
    let (with_replica, without): (Vec<_>, Vec<_>) = uploads.into_iter().partition(is_first);
    assert!(!with_replica.is_empty() && !without.is_empty());
    for upload in &with_replica {
        let created = retry(|| store.create(upload, u64::MAX)).await;
        assert_eq!(created, Creation::Created);
        record(&store, &upload.id, [1]).await;
    }
    does_not_succeed(store.create(&without[0], u64::MAX).await);
    replica.pause();
    let parts = [part(2)];
    let late = store.record_parts(&with_replica[0].id, writer(1), 0, &parts, times());
    does_not_succeed(late.await);
    replica.resume();
    let outcome =
        retry(|| store.record_parts(&with_replica[0].id, writer(1), 0, &parts, times())).await;
    assert_eq!(outcome, PartRecord::Recorded { committed: 2 });
}
