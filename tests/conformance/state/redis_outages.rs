//! Outages of Redis: servers that restart, hang, or fail over.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use upload_gateway::state::redis::{Redis, RedisConfig, RedisMode};
use upload_gateway_core::{
    error::{Error, Reason},
    state::{PartRecord, PartStore, RecordStore},
};

use super::{
    common, config,
    redis_only::{POLL, ask, try_ask},
    samples::*,
    takeovers,
};

/// Repeats a call while it fails with a retryable error. The gateway does the same; the adapter itself does not retry.
pub(crate) async fn retry<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    let retrying = async {
        loop {
            match call().await {
                Err(error) if error.is_retryable() => sleep(POLL).await,
                answer => return answer.unwrap(),
            }
        }
    };
    timeout(Duration::from_secs(30), retrying).await.unwrap()
}

#[tokio::test]
async fn a_restart_of_the_server_needs_no_new_adapter() {
    let Some((mut server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url])).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    record(&store, &upload.id, [1]).await;
    server.kill();
    let part = part(2);
    server.restart();
    let parts = std::slice::from_ref(&part);
    let outcome = retry(|| store.record_parts(&upload.id, writer(1), 0, parts, times())).await;
    assert_eq!(outcome, PartRecord::Recorded { committed: 2 });
    assert_eq!(get(&store, &upload.id).await.parts.committed(), 2);
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable_within_the_timeout() {
    let Some((mut server, url)) = common::private_redis(&[]) else {
        return;
    };
    let call_timeout = Duration::from_millis(300);
    let store = Redis::connect(&RedisConfig {
        call_timeout,
        ..config([url])
    })
    .await
    .unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    for outage in ["hangs", "is gone"] {
        if outage == "hangs" {
            server.pause()
        } else {
            server.kill()
        }
        let begun = Instant::now();
        let failure = store.get(&upload.id).await.unwrap_err();
        assert_eq!(
            failure.reason(),
            Reason::StateUnavailable,
            "{outage}: {failure:?}"
        );
        assert!(failure.is_retryable());
        assert!(
            begun.elapsed() < call_timeout * 3,
            "{outage}: took {:?}",
            begun.elapsed()
        );
        if outage == "hangs" {
            server.resume()
        } else {
            server.restart()
        }
        assert_eq!(get(&store, &upload.id).await, upload, "{outage}");
    }
}

#[tokio::test]
async fn a_fail_over_of_the_primary_is_followed() {
    let Some(mut sentinels) = common::redis_sentinels() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Sentinel,
        service_name: Some(sentinels.name.into()),
        ..config(sentinels.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    record(&store, &upload.id, [1]).await;
    sentinels.wait_for_replica();
    sentinels.fail_over();
    let parts = [part(2)];
    let outcome = retry(|| store.record_parts(&upload.id, writer(1), 0, &parts, times())).await;
    assert_eq!(outcome, PartRecord::Recorded { committed: 2 });
    takeovers::watchers_are_notified_of_every_take_over(&store).await;
}

#[tokio::test]
async fn the_adapter_leaves_a_primary_that_became_a_replica() {
    let Some(sentinels) = common::redis_sentinels() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Sentinel,
        service_name: Some(sentinels.name.into()),
        call_timeout: Duration::from_secs(20),
        ..config(sentinels.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    sentinels.wait_for_replica();
    // Refused until the Sentinels know the replica.
    let fail_over = redis::cmd("SENTINEL")
        .arg("FAILOVER")
        .arg(sentinels.name)
        .to_owned();
    common::until("the Sentinels fail over", async || {
        try_ask::<()>(&sentinels.urls[0], &fail_over).await.is_ok()
    })
    .await;
    common::until("the replica is the primary", async || {
        sentinels.primary_port() == sentinels.replica.port()
    })
    .await;
    record(&store, &upload.id, [1]).await;
    assert_eq!(get(&store, &upload.id).await.parts.committed(), 1);
}

#[tokio::test]
async fn a_restart_of_a_cluster_node_is_waited_out() {
    let Some(mut cluster) = common::redis_cluster() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Cluster,
        call_timeout: Duration::from_secs(20),
        ..config(cluster.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    let uploads: Vec<_> = (0..12).map(|_| upload(&owner())).collect();
    for upload in &uploads {
        create(&store, upload).await;
    }
    cluster.nodes[0].restart();
    for upload in &uploads {
        let parts = [part(1)];
        let outcome = retry(|| store.record_parts(&upload.id, writer(1), 0, &parts, times())).await;
        assert_eq!(outcome, PartRecord::Recorded { committed: 1 });
        assert_eq!(get(&store, &upload.id).await.parts.committed(), 1);
    }
    takeovers::watchers_are_notified_of_every_take_over(&store).await;
}

/// Operators change the password in Redis and in the file, and then end the connections.
#[tokio::test]
async fn a_rotated_password_is_read_from_the_file_again() {
    let Some((server, url)) = common::private_redis(&[]) else {
        return;
    };
    let with = |password: &str| {
        let port = server.port();
        format!("redis://gateway:{password}@127.0.0.1:{port}")
    };
    let user = ["SETUSER", "gateway", "on", ">first", "~*", "&*", "+@all"];
    ask::<()>(&url, redis::cmd("ACL").arg(&user)).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("redis_url");
    std::fs::write(&file, with("first")).unwrap();
    let config = RedisConfig {
        url_file: Some(file.clone()),
        ..config([with("first")])
    };
    let store = Redis::connect(&config).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    let rotated = ["SETUSER", "gateway", "resetpass", ">second"];
    ask::<()>(&url, redis::cmd("ACL").arg(&rotated)).await;
    ask::<u64>(&url, redis::cmd("CLIENT").arg(&["KILL", "USER", "gateway"])).await;
    let failure = store.get(&upload.id).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::StateUnavailable, "{failure:?}");
    std::fs::write(&file, format!("{}\n", with("second"))).unwrap();
    assert_eq!(get(&store, &upload.id).await, upload);
}
