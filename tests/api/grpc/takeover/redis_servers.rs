//! Takeovers between gateways whose Redis is a Cluster or has a fail-over.

use tokio::time::Instant;
use upload_gateway::config::{Config, RedisMode, S3Profile};

use super::{PART, begin, bytes, is_taken_over, take_over};
use crate::common::{self, S3Backend, TestGateway, WAIT_TIMEOUT};

/// Two gateways on those servers.
async fn pair(s3: &S3Backend, mode: RedisMode, urls: &[String]) -> (TestGateway, TestGateway) {
    let mut config = Config {
        redis_url: Some(urls[0].parse().unwrap()),
        storage: vec![s3.storage(S3Profile::Compatible)],
        ..Config::default()
    };
    config.redis.mode = mode;
    config.redis.nodes = urls[1..].iter().map(|url| url.parse().unwrap()).collect();
    config.redis.service_name =
        (mode == RedisMode::Sentinel).then(|| common::SENTINEL_SERVICE.to_owned());
    (
        TestGateway::over(config.clone()).await,
        TestGateway::over(config).await,
    )
}

/// Streams that send nothing end although their signs of life are far: they were told. Each way, and for several slots.
async fn notices_arrive(here: &TestGateway, there: &TestGateway) {
    for (older, newer) in [(here, there), (there, here), (here, there)] {
        let (mut stream, upload_id) = begin(older, None).await;
        let _newer = take_over(newer, &upload_id).await;
        let taken = Instant::now();
        is_taken_over(&stream.failure().await);
        assert!(
            taken.elapsed() < WAIT_TIMEOUT / 2,
            "by its sign of life only"
        );
    }
}

#[tokio::test]
async fn notices_arrive_through_a_cluster_also_after_a_restart_of_its_nodes() {
    let Some(s3) = common::s3().await else {
        return;
    };
    let Some(mut cluster) = common::redis_cluster() else {
        return;
    };
    let (here, there) = pair(&s3, RedisMode::Cluster, &cluster.urls).await;
    notices_arrive(&here, &there).await;
    // Whichever node a gateway listens to.
    for node in &mut cluster.nodes {
        node.restart();
    }
    notices_arrive(&here, &there).await;
}

#[tokio::test]
async fn a_fail_over_keeps_the_fence_and_notices_arrive_again() {
    let Some(s3) = common::s3().await else {
        return;
    };
    let Some(mut sentinels) = common::redis_sentinels() else {
        return;
    };
    let (here, there) = pair(&s3, RedisMode::Sentinel, &sentinels.urls).await;
    notices_arrive(&here, &there).await;
    let data = bytes(2 * PART);
    let (mut older, upload_id) = begin(&here, None).await;
    older.send_in_chunks(0, &data[..PART], 1 << 20).await;
    older.committed(PART).await;
    sentinels.wait_for_replica();
    sentinels.fail_over();
    let _newer = take_over(&there, &upload_id).await;
    // Told or not: the record has another writer.
    older.send_in_chunks(PART, &data[PART..], 1 << 20).await;
    is_taken_over(&older.failure().await);
    let known = there.get(&upload_id).await.unwrap();
    assert_eq!(known.committed_size, i64::try_from(PART).unwrap());
    notices_arrive(&here, &there).await;
}
