//! What the Redis adapter promises besides: outages ridden out, one round trip per part, keys that end.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use redis::FromRedisValue;
use tokio::time::{Instant, sleep, timeout};
use upload_gateway::{
    error::{Error, Kind, Reason},
    state::{
        Creation, ListQuery, PartRecord, RECORD_GRACE_SECONDS, StateStore,
        redis::{ConnectError, Redis, RedisConfig, RedisMode},
    },
    upload::{Phase, Secret},
};

use super::{common, config, fresh_redis, samples::*, takeovers};

/// How often to ask for what only other processes can bring about.
const POLL: Duration = Duration::from_millis(10);

async fn ask<T: FromRedisValue>(url: &str, command: &redis::Cmd) -> T {
    try_ask(url, command).await.unwrap()
}

async fn try_ask<T: FromRedisValue>(url: &str, command: &redis::Cmd) -> redis::RedisResult<T> {
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

/// What the server ran since it had run `before`: how many scripts, and which other commands. Those of the scripts are
/// among them; anything else would be another round trip.
async fn ran_since(url: &str, before: &BTreeMap<String, u64>) -> (u64, Vec<String>) {
    let mut new = calls(url).await;
    for (name, count) in &mut new {
        *count -= before.get(name).unwrap_or(&0);
    }
    new.retain(|name, count| *count > 0 && name != "info" && !name.starts_with("client"));
    let scripts = new.remove("evalsha").unwrap_or_default();
    (scripts, new.into_keys().collect())
}

/// Repeats a call while it may succeed later, as the gateway does: the adapter itself does not.
pub(crate) async fn hold<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    let patient = async {
        loop {
            match call().await {
                Err(error) if error.is_retryable() => sleep(POLL).await,
                answer => return answer.unwrap(),
            }
        }
    };
    timeout(Duration::from_secs(30), patient).await.unwrap()
}

/// Waits until so many have subscribed to takeovers.
async fn subscribed(url: &str, wanted: u64) {
    let channel = format!("{}takeovers", RedisConfig::default().key_prefix);
    let numbers = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).to_owned();
    while ask::<(String, u64)>(url, &numbers).await.1 != wanted {
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_take_over_is_heard_in_every_process() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let here = Redis::connect(&config([url.clone()])).await.unwrap();
    let there = Redis::connect(&config([url.clone()])).await.unwrap();
    subscribed(&url, 2).await;
    let upload = upload(&owner());
    create(&here, &upload).await;
    let mut watch = there.watch_takeovers(&upload.id);
    for number in 2..5 {
        takeovers::take_over(&here, &upload.id, writer(number)).await;
        takeovers::hears(&mut watch, writer(number - 1)).await;
    }
    drop(here);
    subscribed(&url, 1).await;
}

#[tokio::test]
async fn a_subscription_that_broke_is_made_again_and_what_was_missed_is_told() {
    let Some((mut server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    for outage in ["cut", "restarted"] {
        subscribed(&url, 1).await;
        let upload = upload(&owner());
        create(&store, &upload).await;
        let mut watch = store.watch_takeovers(&upload.id);
        if outage == "cut" {
            let kill = ["KILL", "TYPE", "pubsub"];
            ask::<u64>(&url, redis::cmd("CLIENT").arg(&kill)).await;
        } else {
            server.restart();
        }
        takeovers::hears(&mut watch, writer(1)).await;
        subscribed(&url, 1).await;
        takeovers::who_watches_hears_of_every_take_over(&store).await;
    }
}

/// A user without the right to channels: takeovers work, only nobody hears of them.
#[tokio::test]
async fn a_user_that_may_not_publish_takes_over_all_the_same() {
    let Some((server, url)) = common::private_redis(&[]) else {
        return;
    };
    let user = [
        "SETUSER",
        "gateway",
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
    ];
    ask::<()>(&url, redis::cmd("ACL").arg(&user)).await;
    let url = format!("redis://gateway:secret@127.0.0.1:{}", server.port());
    let store = Redis::connect(&config([url])).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    takeovers::take_over(&store, &upload.id, writer(2)).await;
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
    let of_the_script = ["hexists", "hmget", "hset", "pexpireat", "pexpiretime"];
    assert_eq!(commands, of_the_script);
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
    assert_eq!(commands, ["hmget", "hset", "pexpireat", "pexpiretime"]);
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
async fn keys_end_seven_days_after_the_upload_and_the_secret_never() {
    let Some((store, backend)) = fresh_redis().await else {
        return;
    };
    let upload = findable(&owner(), "a");
    create(&store, &upload).await;
    let mut later = times();
    later.expires_at = later.expires_at.plus(Duration::from_secs(1_000));
    store
        .record_parts(&upload.id, writer(1), &[part(1)], later)
        .await
        .unwrap();
    store.secret(&Secret::random()).await.unwrap();
    let keys: Vec<String> = ask(&backend.url, redis::cmd("KEYS").arg("upload-gateway:*")).await;
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in keys {
        let end: i64 = ask(&backend.url, redis::cmd("PEXPIRETIME").arg(&key)).await;
        let grace = i64::try_from(RECORD_GRACE_SECONDS * 1_000).unwrap();
        let expected = match key.split(':').nth(1).unwrap() {
            "secret" => -1,
            // Parts leave them as they are; they are prolonged when they are read.
            "owner" | "due" => i64::try_from(upload.expires_at.0).unwrap() + grace,
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
    for name in ["upload", "fingerprints"] {
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
        owner: owner.clone(),
        phase: None,
        limit: 10,
        after: None,
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
    let outcome = hold(|| store.record_parts(&upload.id, writer(1), parts, times())).await;
    assert_eq!(outcome, PartRecord::Recorded { committed: 2 });
    assert_eq!(get(&store, &upload.id).await.parts.committed(), 2);
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_within_the_patience() {
    let Some((mut server, url)) = common::private_redis(&[]) else {
        return;
    };
    let patience = Duration::from_millis(300);
    let store = Redis::connect(&RedisConfig {
        patience,
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
            begun.elapsed() < patience * 3,
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
async fn what_cannot_be_read_is_a_fault_and_not_retried() {
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
        .record_parts(&upload.id, writer(1), &[part(1)], times())
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
async fn a_fail_over_of_the_primary_is_followed() {
    let Some(mut sentinels) = common::redis_sentinels() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Sentinel {
            service_name: sentinels.name.into(),
            sentinel_password: None,
        },
        ..config(sentinels.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    record(&store, &upload.id, [1]).await;
    wait_for_replica(&sentinels).await;
    sentinels.fail_over();
    let parts = [part(2)];
    let outcome = hold(|| store.record_parts(&upload.id, writer(1), &parts, times())).await;
    assert_eq!(outcome, PartRecord::Recorded { committed: 2 });
    takeovers::who_watches_hears_of_every_take_over(&store).await;
}

/// Returns when the replica has everything: a fail-over may lose what it has not.
async fn wait_for_replica(sentinels: &common::RedisSentinels) {
    let url = format!("redis://127.0.0.1:{}", sentinels.primary.port());
    loop {
        let replicas: u32 = ask(&url, redis::cmd("WAIT").arg(1).arg(100)).await;
        let upload_keys: u32 = ask(
            &format!("redis://127.0.0.1:{}", sentinels.replica.port()),
            &redis::cmd("DBSIZE"),
        )
        .await;
        if replicas == 1 && upload_keys > 0 {
            return;
        }
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_left() {
    let Some(sentinels) = common::redis_sentinels() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Sentinel {
            service_name: sentinels.name.into(),
            sentinel_password: None,
        },
        patience: Duration::from_secs(20),
        ..config(sentinels.urls.clone())
    };
    let store = Redis::connect(&config).await.unwrap();
    let upload = upload(&owner());
    create(&store, &upload).await;
    wait_for_replica(&sentinels).await;
    // Refused until the Sentinels have heard from the replica.
    let fail_over = redis::cmd("SENTINEL")
        .arg("FAILOVER")
        .arg(sentinels.name)
        .to_owned();
    while try_ask::<()>(&sentinels.urls[0], &fail_over).await.is_err() {
        sleep(POLL).await;
    }
    while sentinels.primary_port() != sentinels.replica.port() {
        sleep(POLL).await;
    }
    record(&store, &upload.id, [1]).await;
    assert_eq!(get(&store, &upload.id).await.parts.committed(), 1);
}

#[tokio::test]
async fn a_node_of_a_cluster_that_restarts_is_waited_for() {
    let Some(mut cluster) = common::redis_cluster() else {
        return;
    };
    let config = RedisConfig {
        mode: RedisMode::Cluster,
        patience: Duration::from_secs(20),
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
        let outcome = hold(|| store.record_parts(&upload.id, writer(1), &parts, times())).await;
        assert_eq!(outcome, PartRecord::Recorded { committed: 1 });
        assert_eq!(get(&store, &upload.id).await.parts.committed(), 1);
    }
    takeovers::who_watches_hears_of_every_take_over(&store).await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_authority_of_the_file_only() {
    let Some(server) = common::redis_tls() else {
        return;
    };
    let unknown = RedisConfig {
        patience: Duration::from_millis(200),
        ..config([server.url.clone()])
    };
    assert!(matches!(
        Redis::connect(&unknown).await.unwrap_err(),
        ConnectError::Failed(_)
    ));
    let missing = RedisConfig {
        authority_file: Some(PathBuf::from("/nowhere.pem")),
        ..unknown.clone()
    };
    assert!(matches!(
        Redis::connect(&missing).await.unwrap_err(),
        ConnectError::AuthorityFile { .. }
    ));
    let known = RedisConfig {
        authority_file: Some(server.authority_file.clone()),
        ..config([server.url.clone()])
    };
    let store = Redis::connect(&known).await.unwrap();
    let mut upload = upload(&owner());
    create(&store, &upload).await;
    upload.phase = Phase::Aborted;
    store.update(&upload).await.unwrap();
    assert_eq!(store.create(&upload).await.unwrap(), Creation::Created);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let config = |url: &str, key_prefix: &str| RedisConfig {
        key_prefix: key_prefix.into(),
        ..config([url.to_owned()])
    };
    for config in [
        config("redis://127.0.0.1:1", "{x}"),
        config("http://127.0.0.1:1", ""),
        RedisConfig {
            urls: Vec::new(),
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
