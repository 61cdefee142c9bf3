//! Watching uploads over Redis: a notice only shortens the wait, and all watchers share the reads of a record.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Streaming;
use upload_gateway::config::{Config, S3Profile};
use upload_gateway_client::proto::v1::{Phase, UploadProgress, WatchUploadRequest};

use crate::common::{self, Conversation, S3Backend, Server, TestGateway, chunk, finish, open};

/// A gateway on a Redis server of its own, and an open stream.
struct World {
    gateway: TestGateway,
    stream: Conversation,
    upload_id: String,
    redis_url: String,
    _redis: Server,
    _s3: S3Backend,
}

impl World {
    async fn start(redis_arguments: &[&str], user: &str) -> Option<Self> {
        let (redis, redis_url) = common::private_redis(redis_arguments)?;
        let rules = [
            "SETUSER",
            "deaf",
            "on",
            ">secret",
            "~*",
            "+@all",
            "resetchannels",
        ];
        let client = redis::Client::open(redis_url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let set = redis::cmd("ACL").arg(&rules).to_owned();
        let () = set.query_async(&mut connection).await.unwrap();
        let s3 = common::s3().await?;
        let url = redis_url.replace("redis://", &format!("redis://{user}"));
        let config = Config {
            redis_url: Some(url.parse().unwrap()),
            storage: vec![s3.storage(S3Profile::Compatible)],
            ..Config::default()
        };
        let gateway = TestGateway::over(config).await;
        let mut stream = gateway.converse().await;
        stream.send(open("a.bin", None)).await;
        let upload_id = stream.next().await.unwrap().upload_id;
        Some(Self {
            gateway,
            stream,
            upload_id,
            redis_url,
            _redis: redis,
            _s3: s3,
        })
    }

    async fn watch(&self) -> Streaming<UploadProgress> {
        let request = WatchUploadRequest {
            upload_id: self.upload_id.clone(),
        };
        let watched = self.gateway.client().await.watch_upload(request).await;
        let mut watched = watched.unwrap().into_inner();
        watched.message().await.unwrap().unwrap();
        watched
    }

    /// Completes the upload; returns how long after that the watcher reports it.
    async fn delay_of_completion(self) -> Duration {
        let mut watched = self.watch().await;
        // Not within the shortest time after the first read.
        sleep(Duration::from_millis(600)).await;
        self.stream.send(chunk(0, b"abc")).await;
        self.stream.send(finish()).await;
        self.stream.end().await.unwrap();
        let completed = Instant::now();
        let mut last = None;
        while let Some(progress) = watched.message().await.unwrap() {
            last = Some(progress);
        }
        assert_eq!(last.unwrap().upload.unwrap().phase(), Phase::Complete);
        completed.elapsed()
    }
}

#[tokio::test]
async fn a_watcher_is_notified_of_completion() {
    let Some(world) = World::start(&[], "").await else {
        return;
    };
    let delay = world.delay_of_completion().await;
    assert!(delay < Duration::from_secs(2), "{delay:?}");
}

#[tokio::test]
async fn a_watcher_sees_completion_within_six_seconds_although_all_notices_are_lost() {
    let Some(world) = World::start(&["--rename-command", "PUBLISH", ""], "").await else {
        return;
    };
    let delay = world.delay_of_completion().await;
    assert!(delay < Duration::from_secs(6), "{delay:?}");
}

#[tokio::test]
async fn a_watcher_reads_every_second_if_its_user_may_not_subscribe() {
    let Some(world) = World::start(&[], "deaf:secret@").await else {
        return;
    };
    let delay = world.delay_of_completion().await;
    assert!(delay < Duration::from_secs(3), "{delay:?}");
}

#[tokio::test]
async fn ten_watchers_of_one_upload_share_its_reads() {
    let Some(world) = World::start(&[], "").await else {
        return;
    };
    let mut watchers = Vec::new();
    for _ in 0..10 {
        watchers.push(world.watch().await);
    }
    let client = redis::Client::open(world.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // Reads that the last watchers have asked for.
    sleep(Duration::from_secs(1)).await;
    let reset = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    let () = reset.query_async(&mut connection).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    let report: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut connection)
        .await
        .unwrap();
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let scripts: u32 = line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap());
    // One read in five seconds, and a heartbeat of the stream.
    assert!((1..=4).contains(&scripts), "{scripts}");
    world.stream.send(chunk(0, b"abc")).await;
    world.stream.send(finish()).await;
    world.stream.end().await.unwrap();
    for mut watched in watchers {
        let mut last = None;
        while let Some(progress) = watched.message().await.unwrap() {
            last = Some(progress);
        }
        assert_eq!(last.unwrap().phase(), Phase::Complete);
    }
}
