//! Contracts of the Redis adapter: one round trip per part, keys that expire, servers that it refuses.

use std::{collections::BTreeMap, time::Duration};

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

/// How often the server has run each command, also from scripts.
async fn calls(url: &str) -> BTreeMap<String, u64> {
    let report: String = ask(url, redis::cmd("INFO").arg("commandstats")).await;
    let lines = report
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"));
    lines
        .filter_map(|line| {
            let (name, counts) = line.split_once(":calls=")?;
            Some((name.to_owned(), counts.split(',').next()?.parse().ok()?))
        })
        .collect()
}

/// What the server has run since `before`: the number of scripts, and all other commands. These include the commands in
/// the scripts; any other would be another round trip.
async fn ran_since(url: &str, before: &BTreeMap<String, u64>) -> (u64, Vec<String>) {
    let mut new = calls(url).await;
    for (name, count) in &mut new {
        *count -= before.get(name).unwrap_or(&0);
    }
    // The connection for notices may be set up at the same time.
    let sets_up = |name: &str| matches!(name, "info" | "subscribe") || name.starts_with("client");
    new.retain(|name, count| *count > 0 && !sets_up(name));
    let scripts = new.remove("evalsha").unwrap_or_default();
    (scripts, new.into_keys().collect())
}

#[tokio::test]
async fn a_part_takes_one_round_trip() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    let before = calls(&url).await;
    record(&store, &upload.id, 1..=20).await;
    let (scripts, commands) = ran_since(&url, &before).await;
    assert_eq!(scripts, 20);
    let of_the_script = [
        "getrange",
        "hdel",
        "hget",
        "hkeys",
        "hmget",
        "hset",
        "pexpireat",
        "pexpiretime",
        "setrange",
    ];
    // In particular, no PUBLISH: nothing watches the record.
    assert_eq!(commands, of_the_script);
    store.observe(&upload.id).await.unwrap();
    let before = calls(&url).await;
    record(&store, &upload.id, [21]).await;
    let (_, commands) = ran_since(&url, &before).await;
    assert!(commands.contains(&"publish".to_owned()), "{commands:?}");
}

#[tokio::test]
async fn a_claim_takes_one_round_trip_and_never_reads_all_parts() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let upload = sized(upload(&owner()), 100);
    create(&store, &upload).await;
    let before = calls(&url).await;
    let all: Vec<_> = (1..=100).map(claim).collect();
    for claims in all.chunks(5) {
        store
            .claim(&upload.id, &upload.owner, claims, times())
            .await
            .unwrap();
    }
    let (scripts, commands) = ran_since(&url, &before).await;
    assert_eq!(scripts, 20);
    let of_the_script = [
        "getrange",
        "hgetall",
        "hmget",
        "hset",
        "pexpireat",
        "pexpiretime",
        "setrange",
    ];
    assert_eq!(commands, of_the_script);
}

/// How often the server has read from its connections.
async fn reads(url: &str) -> u64 {
    let report: String = ask(url, redis::cmd("INFO").arg("stats")).await;
    let mut lines = report.lines();
    let count = lines.find_map(|line| line.strip_prefix("total_reads_processed:"));
    count.unwrap().parse().unwrap()
}

/// Commands that are sent together arrive in one read, if they are as short as those of 20 records.
#[tokio::test]
async fn a_page_takes_two_round_trips() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let owner = owner();
    for number in 0..40 {
        let upload = upload(&owner);
        create(&store, &upload).await;
        record(&store, &upload.id, 1..number % 3).await;
    }
    let query = ListQuery {
        listing: owner.into(),
        after: None,
        skip: 5,
        limit: 20,
    };
    // Connects.
    store.list(&query).await.unwrap();
    let begun = reads(&url).await;
    let of_asking = reads(&url).await - begun;
    let (before, begun) = (calls(&url).await, reads(&url).await);
    let page = store.list(&query).await.unwrap();
    let read = reads(&url).await - begun - of_asking;
    assert_eq!((page.uploads.len(), read), (20, 2));
    let (scripts, commands) = ran_since(&url, &before).await;
    assert_eq!(scripts, 20);
    assert_eq!(commands, ["getrange", "hgetall", "hmget", "zrange"]);
}

/// One after the other they would take one read each.
#[tokio::test]
async fn the_nodes_of_a_cluster_get_the_reads_of_a_page_together() {
    let Some(cluster) = common::redis_cluster() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Cluster,
        ..config(cluster.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    let owner = owner();
    for _ in 0..150 {
        create(&store, &upload(&owner)).await;
    }
    let query = ListQuery {
        listing: owner.into(),
        after: None,
        skip: 0,
        limit: 150,
    };
    // Connects.
    store.list(&query).await.unwrap();
    let all_reads = || async {
        let mut sum = 0;
        for url in &cluster.urls {
            sum += reads(url).await;
        }
        sum
    };
    let begun = all_reads().await;
    assert_eq!(store.list(&query).await.unwrap().uploads.len(), 150);
    let read = all_reads().await - begun;
    assert!(read < 60, "{read} reads");
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

/// One script for all of them would delay every other call.
#[tokio::test]
async fn many_claims_are_stored_in_steps_and_only_if_all_are_in_the_plan() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let upload = sized(upload(&owner()), 2_400);
    create(&store, &upload).await;
    for (count, noted) in [(2_401, 0), (2_400, 2_400)] {
        let before = calls(&url).await;
        let claims: Vec<_> = (1..=count).map(claim).collect();
        let answer = store.claim(&upload.id, &upload.owner, &claims, times());
        assert_eq!(answer.await.unwrap().unwrap().id, upload.id);
        assert_eq!(ran_since(&url, &before).await.0, 3);
        let known = get(&store, &upload.id).await.claims;
        assert_eq!(known.iter().count(), noted, "of {count}");
    }
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
    assert_eq!(keys.len(), 11, "{keys:?}");
    for key in keys {
        let end: i64 = ask(&backend.url, redis::cmd("PEXPIRETIME").arg(&key)).await;
        let grace = i64::try_from(RECORD_GRACE_SECONDS * 1_000).unwrap();
        let expected = match key.split(':').nth(1).unwrap() {
            "secret" | "format" => -1,
            // Recording parts does not change the expiry of the keys; reading prolongs it.
            "owner" | "tenant" | "due" => i64::try_from(upload.expires_at.0).unwrap() + grace,
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
    let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg("*owner*")).await;
    assert!(keys.is_empty(), "{keys:?}");
    let due = store.due(upload.expires_at, None, 10).await.unwrap();
    assert!(due.uploads.is_empty());
    let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg("*:due")).await;
    assert!(keys.is_empty(), "{keys:?}");
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
