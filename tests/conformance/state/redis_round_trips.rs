//! How many round trips the Redis adapter makes.

use std::collections::BTreeMap;

use upload_gateway::state::redis::{Redis, RedisConfig, RedisMode};
use upload_gateway_core::{
    state::{
        Created, Creation, Index, ListQuery, ListingStore, PartStore, RecordStore, Selection,
        Update,
    },
    upload::{Phase, UploadId},
};

use super::{common, config, redis_only::ask, samples::*};

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

/// Commands that are sent together arrive in one read, if they are short.
#[tokio::test]
async fn a_create_and_a_change_of_the_phase_take_one_round_trip_each() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    // Connects. The connection for notices is set up at the same time.
    create(&store, &upload(&owner())).await;
    let mut of_asking = u64::MAX;
    for _ in 0..5 {
        let begun = reads(&url).await;
        of_asking = of_asking.min(reads(&url).await - begun);
    }
    let begun = reads(&url).await;
    let mut upload = findable(&owner(), "a");
    let created = store.create(&upload, 1000).await.unwrap();
    assert_eq!(created, Creation::Created);
    assert_eq!(reads(&url).await - begun - of_asking, 1);
    for phase in [Phase::Committing, Phase::Complete] {
        let begun = reads(&url).await;
        upload.phase = phase;
        let updated = store.update(&upload, upload.writer).await.unwrap();
        assert_eq!(reads(&url).await - begun - of_asking, 1, "{phase}");
        let Update::Updated(version) = updated else {
            panic!("{updated:?}");
        };
        upload.version = version;
    }
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

#[tokio::test]
async fn a_page_of_a_search_takes_two_round_trips() {
    let Some((_server, url)) = common::private_redis(&[]) else {
        return;
    };
    let store = Redis::connect(&config([url.clone()])).await.unwrap();
    let owner = owner();
    for _ in 0..20 {
        create(&store, &upload(&owner)).await;
    }
    let selection = Selection {
        listing: owner.into(),
        index: Index::Tag("a".into()),
        created: Created::default(),
    };
    let page = async || {
        let entries = store.entries(&selection, None, 10_000).await.unwrap();
        let ids: Vec<_> = entries
            .iter()
            .map(|entry| UploadId::from_bytes(entry.id))
            .collect();
        store.summaries(&ids).await.unwrap().len()
    };
    // Connects.
    page().await;
    let begun = reads(&url).await;
    let of_asking = reads(&url).await - begun;
    let (before, begun) = (calls(&url).await, reads(&url).await);
    let length = page().await;
    let read = reads(&url).await - begun - of_asking;
    assert_eq!((length, read), (20, 2));
    let (scripts, commands) = ran_since(&url, &before).await;
    assert_eq!(scripts, 20);
    assert_eq!(commands, ["hgetall", "hmget", "zrange"]);
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
