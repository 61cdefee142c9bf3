//! Contracts of the Redis adapter: keys that expire, scripts that are lost, servers that it refuses.

use std::time::Duration;

use redis::FromRedisValue;
use tokio::time::Instant;
use upload_gateway::state::redis::{ConnectError, Redis, RedisConfig, RedisMode, RedisUrl};
use upload_gateway_core::{
    error::Kind,
    state::{
        Creation, ListQuery, ListingStore, PartStore, RECORD_GRACE_SECONDS, RecordStore,
        ScheduleStore, StateStore,
    },
    upload::{Part, Phase, Secret},
};

use super::{common, config, fresh_redis, samples::*};

/// The time between two attempts.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// The answer to a command.
pub(crate) async fn ask<T: FromRedisValue>(url: &str, command: &redis::Cmd) -> T {
    try_ask(url, command).await.unwrap()
}

/// The answer to a command, or its error.
pub(crate) async fn try_ask<T: FromRedisValue>(
    url: &str,
    command: &redis::Cmd,
) -> redis::RedisResult<T> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    command.query_async(&mut connection).await
}

#[tokio::test]
async fn a_server_that_lost_the_scripts_still_lists() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    for _ in 0..3 {
        create(&store, &upload(&owner)).await;
    }
    let query = ListQuery {
        listing: owner.into(),
        after: None,
        skip: 0,
        limit: 10,
    };
    store.list(&query).await.unwrap();
    let () = ask(&backend.url, redis::cmd("SCRIPT").arg("FLUSH")).await;
    assert_eq!(store.list(&query).await.unwrap().uploads.len(), 3);
}

#[tokio::test]
async fn a_server_that_lost_the_scripts_gets_them_again() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let upload = upload(&owner());
    create(&store, &upload).await;
    let () = ask(&backend.url, redis::cmd("SCRIPT").arg("FLUSH")).await;
    record(&store, &upload.id, [1]).await;
    assert_eq!(get(&store, &upload.id).await.parts.committed(), 1);
}

#[tokio::test]
async fn keys_expire_seven_days_after_the_upload_but_the_secret_and_the_format_never() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let upload = sized(findable(&owner(), "a"), 3);
    create(&store, &upload).await;
    let claims = [claim(3)];
    let claimed = store.claim(&upload.id, &upload.owner, &claims, times());
    claimed.await.unwrap();
    let mut later = times();
    later.expires_at = later.expires_at.plus(Duration::from_secs(1_000));
    let long = Part {
        receipt: "\"long\"".into(),
        ..part(2)
    };
    store
        .record_parts(&upload.id, writer(1), 0, &[part(1), long], later)
        .await
        .unwrap();
    store.secret(&Secret::random()).await.unwrap();
    let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg("upload-gateway:*")).await;
    // With indexes of two listings: name, phase, storage with phase, and two tags.
    assert_eq!(keys.len(), 11 + 2 * 5, "{keys:?}");
    for key in keys {
        let end: i64 = ask(&backend.url, redis::cmd("PEXPIRETIME").arg(&key)).await;
        let grace = i64::try_from(RECORD_GRACE_SECONDS * 1_000).unwrap();
        let expected = match key.split(':').nth(1).unwrap() {
            "secret" | "format" => -1,
            // Recording parts does not change the expiry of the keys; reading prolongs it.
            "owner" | "tenant" | "index" | "due" => {
                i64::try_from(upload.expires_at.0).unwrap() + grace
            }
            "live" => i64::try_from(upload.ends_at.0).unwrap(),
            _ => i64::try_from(later.expires_at.0).unwrap() + grace,
        };
        assert_eq!(end, expected, "{key}");
    }
}

#[tokio::test]
async fn claims_prolong_the_keys() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let upload = sized(findable(&owner(), "a"), 3);
    create(&store, &upload).await;
    let mut later = times();
    later.expires_at = later.expires_at.plus(Duration::from_secs(1_000));
    store
        .claim(&upload.id, &upload.owner, &[claim(1)], later)
        .await
        .unwrap();
    for name in ["upload", "claims", "fingerprints"] {
        let pattern = format!("upload-gateway:{name}:*");
        let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg(pattern)).await;
        let end: u64 = ask(&backend.url, redis::cmd("PEXPIRETIME").arg(&keys)).await;
        assert_eq!(end, later.expires_at.0 + RECORD_GRACE_SECONDS * 1_000);
    }
}

#[tokio::test]
async fn a_record_that_vanished_leaves_the_listing_and_frees_its_fingerprint() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    let upload = findable(&owner, "a");
    create(&store, &upload).await;
    let key = format!(
        "upload-gateway:upload:{{{}}}:{}",
        upload.id.tag(),
        upload.id
    );
    let removed: u32 = ask(&backend.url, redis::cmd("DEL").arg(&key)).await;
    assert_eq!(removed, 1);
    let query = ListQuery {
        listing: owner.clone().into(),
        after: None,
        skip: 0,
        limit: 10,
    };
    let page = store.list(&query).await.unwrap();
    assert!(page.uploads.is_empty() && page.next.is_none());
    let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg("*y:owner:*")).await;
    assert!(keys.is_empty(), "{keys:?}");
    let due = store.due(upload.expires_at, None, 10).await.unwrap();
    assert!(due.uploads.is_empty());
    for left in ["*:due", "*:index:*"] {
        let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg(left)).await;
        assert!(keys.is_empty(), "{keys:?}");
    }
    create(&store, &findable(&owner, "a")).await;
}

/// Records end by their expiry, whatever their phase was.
#[tokio::test]
async fn the_index_of_due_uploads_removes_vanished_records_from_listings() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    let mut uploads = Vec::new();
    for phase in [Phase::Open, Phase::Complete, Phase::Aborted] {
        let mut upload = findable(&owner, &phase.to_string());
        create(&store, &upload).await;
        upload.phase = phase;
        store.update(&upload, upload.writer).await.unwrap();
        uploads.push(upload);
    }
    let kept = findable(&owner, "kept");
    create(&store, &kept).await;
    for upload in &uploads {
        let key = format!(
            "upload-gateway:upload:{{{}}}:{}",
            upload.id.tag(),
            upload.id
        );
        let _: u32 = ask(&backend.url, redis::cmd("DEL").arg(key)).await;
    }
    assert_eq!(store.count(&owner.clone().into()).await.unwrap(), 4);
    let removed = kept
        .expires_at
        .plus(Duration::from_secs(RECORD_GRACE_SECONDS));
    let mut after = None;
    let mut due = Vec::new();
    loop {
        // In steps of two.
        let page = store.due(removed, after.as_ref(), 2).await.unwrap();
        due.extend(page.uploads);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(due, [kept.id]);
    assert_eq!(store.count(&owner.clone().into()).await.unwrap(), 1);
    let left: u32 = ask(&backend.url, redis::cmd("ZCARD").arg("upload-gateway:due")).await;
    assert_eq!(left, 1);
}

#[tokio::test]
async fn an_unreadable_record_is_a_fault_and_not_retried() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let upload = upload(&owner());
    let key = format!(
        "upload-gateway:upload:{{{}}}:{}",
        upload.id.tag(),
        upload.id
    );
    let () = ask(&backend.url, redis::cmd("SET").arg(&key).arg("text")).await;
    let begun = Instant::now();
    assert_eq!(
        store.get(&upload.id).await.unwrap_err().kind(),
        Kind::Internal
    );
    let outcome = store
        .record_parts(&upload.id, writer(1), 0, &[part(1)], times())
        .await;
    assert_eq!(outcome.unwrap_err().kind(), Kind::Internal);
    assert!(begun.elapsed() < Duration::from_millis(500));
    let _: u32 = ask(&backend.url, redis::cmd("DEL").arg(&key)).await;
    let _: u32 = ask(
        &backend.url,
        redis::cmd("HSET").arg(&key).arg("record").arg("{"),
    )
    .await;
    assert_eq!(
        store.get(&upload.id).await.unwrap_err().kind(),
        Kind::Internal
    );
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_unless_allowed() {
    let Some((_server, url)) = common::private_redis(&["--maxmemory-policy", "allkeys-lru"]) else {
        return;
    };
    let refused = Redis::connect(&config([url.clone()])).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Evicts { policy } if policy == "allkeys-lru"),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("noeviction"));
    let allowed = RedisConfig {
        allow_eviction: true,
        ..config([url])
    };
    Redis::connect(&allowed).await.unwrap();
}

#[tokio::test]
async fn a_cluster_with_one_node_that_evicts_is_refused() {
    let Some(cluster) = common::redis_cluster() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Cluster,
        ..config(cluster.urls.clone())
    };
    Redis::connect(&config).await.unwrap();
    let set = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory-policy")
        .arg("volatile-ttl")
        .to_owned();
    let () = ask(&cluster.urls[2], &set).await;
    let refused = Redis::connect(&config).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Evicts { policy } if policy == "volatile-ttl"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_hides_its_policy_is_accepted() {
    let Some((_server, url)) = common::private_redis(&["--rename-command", "INFO", ""]) else {
        return;
    };
    Redis::connect(&config([url])).await.unwrap();
}

#[tokio::test]
async fn an_invalid_configuration_is_refused() {
    let config = |url: &str, key_prefix: &str| RedisConfig {
        key_prefix: key_prefix.into(),
        ..config([url.to_owned()])
    };
    assert!("http://127.0.0.1:1".parse::<RedisUrl>().is_err());
    for config in [
        config("redis://127.0.0.1:1", "{x}"),
        RedisConfig {
            mode: RedisMode::Sentinel,
            ..RedisConfig::default()
        },
    ] {
        assert!(matches!(
            Redis::connect(&config).await.unwrap_err(),
            ConnectError::Invalid(_)
        ));
    }
    let secret = config("redis://:hunter2@127.0.0.1:1", "");
    assert!(!format!("{secret:?}").contains("hunter2"));
}

/// As left by a create that failed after it had taken its place.
#[tokio::test]
async fn an_upload_that_must_have_ended_takes_no_place_of_its_owner() {
    let Some((store, _backend)) = fresh_redis().await else {
        return;
    };
    let owner = owner();
    let mut first = upload(&owner);
    first.ends_at = first.updated_at.plus(Duration::from_secs(60));
    let mut second = upload(&owner);
    second.updated_at = first.updated_at;
    assert_eq!(store.create(&first, 1).await.unwrap(), Creation::Created);
    assert_eq!(store.create(&second, 1).await.unwrap(), Creation::Full);
    second.updated_at = first.ends_at;
    assert_eq!(store.create(&second, 1).await.unwrap(), Creation::Created);
}
