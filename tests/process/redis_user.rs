//! The Redis user that the documentation creates has the permissions that a gateway needs, and no others.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use upload_gateway::{
    config::{Config, RedisMode, S3Profile},
    serve::{self, SystemClock},
};
use upload_gateway_client::proto::v1::{
    CreateUploadRequest, DeleteUploadRequest, FileMetadata, ListPartsRequest, ListUploadsRequest,
    Phase, UpdateUploadRequest, WatchUploadRequest, signing_service_client::SigningServiceClient,
};
use upload_gateway_core::{
    clock::Clock,
    gateway::{Gateway, Settings, Sweep, SweepReport},
    upload::Timestamp,
};

use crate::common::{
    self, S3Backend, Server, TestGateway, bytes, chunk, finish, open, open_known, until,
};

const PAGE: &str = include_str!("../../docs/operations.md");

/// More than one part.
const SIZE: usize = 6 << 20;

/// A clock by which every open upload has expired.
#[derive(Debug)]
struct DaysLater;

impl Clock for DaysLater {
    fn now(&self) -> Timestamp {
        SystemClock
            .now()
            .plus(Duration::from_secs(7 * 24 * 60 * 60))
    }
}

/// The rules of the user `gateway`, as the page gives them to the command `ACL SETUSER`.
pub(super) fn documented(begin: &str) -> Vec<String> {
    let (_, command) = PAGE.split_once(begin).expect("the page creates a user");
    let lines = command.split_inclusive('\n');
    let mut rules = String::new();
    for line in lines {
        rules.push_str(line.trim_end().trim_end_matches('\\'));
        if !line.trim_end().ends_with('\\') {
            break;
        }
    }
    let rules = rules.split_whitespace();
    rules.map(|rule| rule.trim_matches('\'').into()).collect()
}

async fn ask<T: redis::FromRedisValue>(url: &str, command: &[&str]) -> T {
    let mut words = redis::cmd(command[0]);
    words.arg(&command[1..]);
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    words.query_async(&mut connection).await.unwrap()
}

/// Creates the documented user, with `more` rules, and returns the URL with it.
async fn with_user(url: &str, more: &[&str]) -> String {
    user_like_it(url, "gateway", more).await
}

/// As [`with_user`], with another name.
pub(super) async fn user_like_it(url: &str, name: &str, more: &[&str]) -> String {
    let rules = documented("ACL SETUSER gateway ");
    let rules = rules.iter().map(String::as_str);
    let command: Vec<_> = ["ACL", "SETUSER", name]
        .into_iter()
        .chain(rules)
        .chain(more.iter().copied())
        .collect();
    ask::<()>(url, &command).await;
    url.replacen("redis://", &format!("redis://{name}:secret@"), 1)
}

/// What the server has refused, except that a client names its library.
async fn refused(url: &str) -> Vec<String> {
    let log: Vec<redis::Value> = ask(url, &["ACL", "LOG"]).await;
    let log = log.iter().map(|entry| format!("{entry:?}"));
    log.filter(|entry| !entry.contains("client|setinfo"))
        .collect()
}

fn config(s3: &S3Backend, urls: &[String]) -> Config {
    let mut config = Config {
        redis_url: Some(urls[0].parse().unwrap()),
        storage: vec![s3.storage(S3Profile::Compatible)],
        ..Config::default()
    };
    config.redis.nodes = urls[1..].iter().map(|url| url.parse().unwrap()).collect();
    config.limits.store_settle_seconds = 1;
    config
}

/// Uploads, takes over, watches, reads, lists, signs, deletes and sweeps.
async fn whole_life(config: Config) {
    let gateway = TestGateway::over(config).await;
    let mut client = gateway.client().await;

    let older = gateway.converse().await;
    older.send(open("a.mp4", Some(SIZE))).await;
    let mut older = older;
    let id = older.next().await.unwrap().upload_id;
    let watch = WatchUploadRequest {
        upload_id: id.clone(),
    };
    let mut watched = client.watch_upload(watch).await.unwrap().into_inner();
    watched.next().await.unwrap().unwrap();

    let newer = gateway.converse().await;
    newer.send(open_known(&id)).await;
    older.failure().await;
    newer.send_in_chunks(0, &bytes(SIZE), 1 << 20).await;
    newer.send(finish()).await;
    let done = newer.end().await.unwrap();
    assert_eq!(done.phase(), Phase::Complete);
    while let Some(progress) = watched.next().await {
        progress.unwrap();
    }

    gateway.get(&id).await.unwrap();
    let parts = ListPartsRequest {
        upload_id: id.clone(),
        ..ListPartsRequest::default()
    };
    client.list_parts(parts).await.unwrap();
    let listed = client.list_uploads(ListUploadsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().uploads.len(), 1);
    let found = format!("{}/api/engine/v2/uploads?name_prefix=A", gateway.http);
    let found = reqwest::get(found).await.unwrap();
    assert_eq!(found.headers()["x-total-count"], "1");

    let mut signing = SigningServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let file = || FileMetadata {
        file_name: "b.mp4".into(),
        file_size: Some(i64::try_from(SIZE).unwrap()),
        file_id: "b".into(),
        ..FileMetadata::default()
    };
    let create = || CreateUploadRequest { file: Some(file()) };
    let signed = signing.create_upload(create()).await.unwrap().into_inner();
    let upload_id = signed.upload_id;
    let claim = UpdateUploadRequest {
        upload_id: upload_id.clone(),
        resumable_id: "session".into(),
        part_list: vec![1],
        ..UpdateUploadRequest::default()
    };
    // The store does not know the session: the claim is recorded, and that is all that matters here.
    let _ = signing.update_upload(claim).await;
    client
        .delete_upload(DeleteUploadRequest { upload_id })
        .await
        .unwrap();
    signing.create_upload(create()).await.unwrap();

    let left = gateway.converse().await;
    left.send(open("left.mp4", Some(SIZE))).await;
    left.send(chunk(0, &bytes(16))).await;
    let mut left = left;
    left.next().await.unwrap();
    drop(left);
    // A shutdown waits for connections.
    drop((client, signing, watched, older));
    let config = gateway.stop().await;
    let report = sweep_days_later(&config).await;
    assert!(report.expired >= 1, "{report:?}");
    assert_eq!(report.failures, 0, "{report:?}");
}

async fn sweep_days_later(config: &Config) -> SweepReport {
    let backends = serve::connect(config).await.unwrap();
    // The state store always uses too much memory, so that records are looked for that can be removed.
    let settings = Settings {
        max_record_memory: Some(1),
        ..config.settings().unwrap()
    };
    let (state, storages) = (Arc::clone(&backends.state), backends.storages.clone());
    let gateway = Gateway::new(state, storages, settings, Arc::new(DaysLater)).await;
    let sweep = Sweep {
        dry_run: false,
        operations_per_second: 1_000,
        session_age: None,
        interval: None,
    };
    let stop = CancellationToken::new();
    let swept = gateway.unwrap().sweeper.sweep(&sweep, &stop).await;
    backends.stop().await;
    swept.unwrap().expect("no other gateway sweeps")
}

#[tokio::test]
async fn the_documented_user_suffices_for_the_whole_life_of_a_gateway() {
    let Some(s3) = common::s3().await else { return };
    let Some((_server, admin)) = common::private_redis(&[]) else {
        return;
    };
    let url = with_user(&admin, &[]).await;
    Box::pin(whole_life(config(&s3, &[url]))).await;
    assert_eq!(refused(&admin).await, [""; 0]);
    let keys: Vec<String> = ask(&admin, &["KEYS", "*"]).await;
    assert!(!keys.is_empty());
    for key in keys {
        assert!(key.starts_with("upload-gateway:"), "{key}");
    }
}

#[tokio::test]
async fn the_documented_user_of_a_cluster_suffices() {
    let Some(s3) = common::s3().await else { return };
    let Some(cluster) = common::redis_cluster() else {
        return;
    };
    let more = documented("In a Cluster, add `");
    let more = more[0].trim_end_matches(['`', '.', ',']).to_owned();
    let mut urls = Vec::new();
    for url in &cluster.urls {
        urls.push(with_user(url, &[&more]).await);
    }
    let mut config = config(&s3, &urls);
    config.redis.mode = RedisMode::Cluster;
    Box::pin(whole_life(config)).await;
    for url in &cluster.urls {
        assert_eq!(refused(url).await, [""; 0]);
    }
}

/// A primary with the documented user and a Sentinel that asks for a user of its own.
async fn behind_a_sentinel() -> Option<(S3Backend, Server, Server, Config)> {
    let s3 = common::s3().await?;
    let (primary, admin) = common::private_redis(&[])?;
    with_user(&admin, &["+role"]).await;
    let rules = documented("user watcher ").join(" ");
    let name = common::SENTINEL_SERVICE;
    let sentinel = common::redis_sentinel(&format!(
        "bind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {} 1\nuser watcher {rules}\n\
         user default on >admin ~* &* +@all\n",
        primary.port()
    ))?;
    let url = format!("redis://gateway:secret@127.0.0.1:{}", sentinel.port());
    let mut config = config(&s3, &[url]);
    config.redis.mode = RedisMode::Sentinel;
    config.redis.service_name = Some(name.into());
    Some((s3, primary, sentinel, config))
}

#[tokio::test]
async fn a_sentinel_has_a_user_and_a_password_of_its_own() {
    let Some((_s3, primary, sentinel, mut config)) = behind_a_sentinel().await else {
        return;
    };
    let refusal = serve::connect_state(&config).await.unwrap_err();
    let refusal = format!("{refusal:?}");
    assert!(refusal.contains("NOAUTH"), "{refusal}");

    config.redis.sentinel_user = Some("watcher".into());
    config.redis.sentinel_password = Some("sentinel-secret".into());
    Box::pin(whole_life(config)).await;
    let servers = [
        format!("redis://127.0.0.1:{}", primary.port()),
        format!("redis://:admin@127.0.0.1:{}", sentinel.port()),
    ];
    for url in servers {
        assert_eq!(refused(&url).await, [""; 0]);
    }
}

/// Commands in Lua scripts and in the adapter that a test may not reach.
#[test]
fn the_documented_user_may_send_every_command_of_the_adapter() {
    let rules = documented("ACL SETUSER gateway ");
    let mut files = vec![
        PathBuf::from("src/state/redis.rs"),
        "src/state/redis".into(),
    ];
    let mut found = 0;
    while let Some(file) = files.pop() {
        if file.is_dir() {
            let folder = fs::read_dir(file).unwrap();
            files.extend(folder.map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (begin, end) in [("call('", '\''), ("cmd(\"", '"')] {
            for after in text.split(begin).skip(1) {
                let command = after.split(end).next().unwrap().to_lowercase();
                found += 1;
                assert!(
                    rules.contains(&format!("+{command}")),
                    "{command} in {}",
                    file.display()
                );
            }
        }
    }
    assert!(found > 50, "{found}");
}

#[tokio::test]
async fn a_channel_that_is_not_permitted_is_logged_once() {
    for (channels, problems) in [
        (vec!["resetchannels"], 2),
        (vec!["resetchannels", "&upload-gateway:changes"], 1),
    ] {
        let Some((_server, admin)) = common::private_redis(&[]) else {
            return;
        };
        let url = with_user(&admin, &channels).await;
        let gateway = common::gateway_process(&format!("redis_url = \"{url}\"\n"));
        for attempt in 1..4 {
            until("it has tried to subscribe", async || {
                denials(&admin).await >= attempt
            })
            .await;
            // The next connection tries again.
            let _: u64 = ask(&admin, &["CLIENT", "KILL", "USER", "gateway"]).await;
        }
        let log = gateway.log();
        assert_eq!(
            log.matches("cannot subscribe to").count(),
            problems,
            "{log}"
        );
    }
}

/// How often Redis has refused the channel of takeovers.
async fn denials(admin: &str) -> u64 {
    let log: Vec<std::collections::HashMap<String, redis::Value>> =
        ask(admin, &["ACL", "LOG"]).await;
    log.iter()
        .filter(|entry| format!("{:?}", entry["object"]).contains("upload-gateway:takeovers"))
        .map(|entry| redis::from_redis_value::<u64>(entry["count"].clone()).unwrap())
        .sum()
}
