//! Two streams on one upload, on one gateway or two: the older one ends at once, nothing that it sends later gets into
//! the object, and a stream can forbid itself to end another one.

mod late_writes;
mod redis_servers;

use std::{io::Cursor, time::Duration};

use tokio::{
    io::{AsyncWriteExt, duplex},
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use upload_gateway::config::{Config, S3Profile, StorageConfig, StoreConfig};
use upload_gateway_client::{
    Client, Event, Source,
    proto::v1::{
        FileMetadata, Open, Phase, Takeover, UploadRequest, open, upload_request::Message,
        upload_service_client::UploadServiceClient,
    },
};

use crate::common::{
    self, Conversation, Forwarder, RedisBackend, S3Backend, Server, TestGateway, bytes, chunk,
    finish, gateway_process, message, open, open_known, reason,
};

const PART: usize = 5 * 1024 * 1024;

/// Two gateways on one Redis and one store.
struct Pair {
    _redis: RedisBackend,
    _s3: S3Backend,
    here: TestGateway,
    there: TestGateway,
}

impl Pair {
    async fn start() -> Option<Self> {
        let (redis, s3) = (common::redis().await?, common::s3().await?);
        let config = config(&redis, s3.storage(S3Profile::Compatible));
        Some(Self::over(redis, s3, config).await)
    }

    async fn over(redis: RedisBackend, s3: S3Backend, config: Config) -> Self {
        Self {
            here: TestGateway::over(config.clone()).await,
            there: TestGateway::over(config).await,
            _redis: redis,
            _s3: s3,
        }
    }
}

fn config(redis: &RedisBackend, storage: StorageConfig) -> Config {
    let mut config = Config {
        redis_url: Some(redis.url.parse().unwrap()),
        storage: vec![storage],
        ..Config::default()
    };
    config.limits.store_settle_seconds = 1;
    config
}

/// A message that opens an existing upload, and decides about another active stream.
fn open_with(upload_id: &str, takeover: Takeover) -> UploadRequest {
    message(Message::Open(Open {
        target: Some(open::Target::UploadId(upload_id.into())),
        takeover: takeover.into(),
        ..Open::default()
    }))
}

/// A stream on a new upload, and its id.
async fn begin(gateway: &TestGateway, size: Option<usize>) -> (Conversation, String) {
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", size)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    (stream, upload_id)
}

fn file() -> FileMetadata {
    FileMetadata {
        file_name: "a.bin".into(),
        ..FileMetadata::default()
    }
}

/// A stream on an existing upload.
async fn take_over(gateway: &TestGateway, upload_id: &str) -> Conversation {
    let mut stream = gateway.converse().await;
    stream.send(open_known(upload_id)).await;
    stream.next().await.unwrap();
    stream
}

fn assert_taken_over(status: &Status) {
    assert_eq!(reason(status), (Code::Aborted, "TAKEN_OVER".into()));
}

#[tokio::test]
async fn the_older_stream_ends_within_a_second_on_another_replica() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let (mut older, upload_id) = begin(&pair.here, None).await;
    older.send(chunk(0, b"the beginning of a part")).await;
    let _newer = take_over(&pair.there, &upload_id).await;
    let taken = Instant::now();
    assert_taken_over(&older.failure().await);
    assert!(taken.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn the_older_stream_ends_at_once_on_the_embedded_stores() {
    let gateway = TestGateway::start().await;
    let (mut older, upload_id) = begin(&gateway, None).await;
    let _newer = take_over(&gateway, &upload_id).await;
    assert_taken_over(&older.failure().await);
}

/// A stream that waits for the store and reads nothing ends, too, and its parts are not stored.
#[tokio::test]
async fn a_stream_that_waits_for_the_store_ends_at_once() {
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let store = through(&s3).await;
    let mut slow = config(&redis, forwarded(&s3, &store));
    slow.limits.parts_in_flight = 1;
    let here = TestGateway::over(slow).await;
    let there = TestGateway::over(config(&redis, s3.storage(S3Profile::Compatible))).await;
    let data = bytes(3 * PART);
    let (mut older, upload_id) = begin(&here, None).await;
    store.hold();
    let filled = older.send_in_chunks(0, &data, 1 << 20);
    // The second part waits for the first one, and the sender for both.
    assert!(timeout(Duration::from_secs(2), filled).await.is_err());
    let _newer = take_over(&there, &upload_id).await;
    assert_taken_over(&older.failure().await);
}

/// Redis sends no notices; the record shows the takeover.
#[tokio::test]
async fn without_notices_the_older_stream_ends_with_its_next_part() {
    let Some(pair) = pair_without_notices(60).await else {
        return;
    };
    let (mut older, upload_id) = begin(&pair.here, None).await;
    let _newer = take_over(&pair.there, &upload_id).await;
    older.send_in_chunks(0, &bytes(PART), 1 << 20).await;
    assert_taken_over(&older.failure().await);
}

#[tokio::test]
async fn without_notices_a_silent_older_stream_ends_with_its_next_heartbeat() {
    let Some(pair) = pair_without_notices(6).await else {
        return;
    };
    let (mut older, upload_id) = begin(&pair.here, None).await;
    let _newer = take_over(&pair.there, &upload_id).await;
    assert_taken_over(&older.failure().await);
}

/// Two gateways whose Redis user may neither publish nor subscribe.
async fn pair_without_notices(idle_timeout_seconds: u64) -> Option<Pair> {
    let redis = common::redis().await?;
    let user = format!("deaf-{:x}", rand::random::<u64>());
    let rules = [
        "SETUSER",
        &user,
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
    ];
    let client = redis::Client::open(redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let set = redis::cmd("ACL").arg(&rules).to_owned();
    let () = set.query_async(&mut connection).await.unwrap();
    let s3 = common::s3().await?;
    let mut config = config(&redis, s3.storage(S3Profile::Compatible));
    let url = redis
        .url
        .replace("redis://", &format!("redis://{user}:secret@"));
    config.redis_url = Some(url.parse().unwrap());
    config.limits.idle_timeout_seconds = idle_timeout_seconds;
    Some(Pair::over(redis, s3, config).await)
}

/// Every subscription is cut just before the takeover, so that its notice is lost.
#[tokio::test]
async fn an_older_stream_ends_although_its_notice_was_lost() {
    let Some((_redis, url)) = common::private_redis(&[]) else {
        return;
    };
    let Some(s3) = common::s3().await else {
        return;
    };
    let config = Config {
        redis_url: Some(url.parse().unwrap()),
        storage: vec![s3.storage(S3Profile::Compatible)],
        ..Config::default()
    };
    let here = TestGateway::over(config.clone()).await;
    let there = TestGateway::over(config).await;
    let (mut older, upload_id) = begin(&here, None).await;
    let mut newer = there.converse().await;
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let kill = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "pubsub"])
        .to_owned();
    let cut: u64 = kill.query_async(&mut connection).await.unwrap();
    assert!(cut >= 1);
    newer.send(open_known(&upload_id)).await;
    newer.next().await.unwrap();
    assert_taken_over(&older.failure().await);
}

#[tokio::test]
async fn an_active_stream_stays_if_takeover_is_forbidden() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let data = bytes(PART + 100);
    let (mut older, upload_id) = begin(&pair.here, Some(data.len())).await;
    older.send_in_chunks(0, &data[..PART], 1 << 20).await;
    older.committed(PART).await;
    let mut newer = pair.there.converse().await;
    newer.send(open_with(&upload_id, Takeover::Forbid)).await;
    let status = newer.failure().await;
    assert_eq!(
        reason(&status),
        (Code::FailedPrecondition, "WRITER_ACTIVE".into())
    );
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    assert!(delay.unwrap() <= Duration::from_secs(60));
    older.send(chunk(PART, &data[PART..])).await;
    older.send(finish()).await;
    assert_eq!(older.end().await.unwrap().phase(), Phase::Complete);
}

/// The same create finds an upload that has an active stream.
#[tokio::test]
async fn neither_a_create_nor_a_restart_ends_a_stream_if_takeover_is_forbidden() {
    let gateway = TestGateway::start().await;
    let file = FileMetadata {
        file_name: "a.bin".into(),
        file_size: Some(3),
        file_id: "kAFQmDzST7DWlj99KOF/cg==".into(),
        ..FileMetadata::default()
    };
    let create = |restart, takeover: Takeover| {
        message(Message::Open(Open {
            target: Some(open::Target::File(file.clone())),
            restart,
            takeover: takeover.into(),
            ..Open::default()
        }))
    };
    let mut older = gateway.converse().await;
    older.send(create(false, Takeover::Forbid)).await;
    older.next().await.unwrap();
    for restart in [false, true] {
        let mut newer = gateway.converse().await;
        newer.send(create(restart, Takeover::Forbid)).await;
        let status = newer.failure().await;
        assert_eq!(reason(&status).1, "WRITER_ACTIVE");
    }
    let mut newer = gateway.converse().await;
    newer.send(create(false, Takeover::Force)).await;
    newer.next().await.unwrap();
    assert_taken_over(&older.failure().await);
}

#[tokio::test]
async fn a_new_stream_does_not_wait_for_one_that_has_ended() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let (older, upload_id) = begin(&pair.here, None).await;
    let status = older.end().await.unwrap_err();
    assert_eq!(reason(&status).1, "INCOMPLETE");
    let mut newer = pair.there.converse().await;
    newer.send(open_with(&upload_id, Takeover::Forbid)).await;
    newer.next().await.unwrap();
}

/// A gateway that is killed does not clear its record: its stream counts as active until the idle time-out.
#[tokio::test]
async fn a_stream_of_a_dead_gateway_is_active_for_the_retry_delay() {
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let limits = "[limits]\nidle_timeout_seconds = 2\n";
    let mut dead = gateway_process(&[&redis.toml(), limits, &s3.toml()].concat());
    let address = format!("http://{}", dead.address());
    let mut older = Conversation::begin(UploadServiceClient::connect(address).await.unwrap()).await;
    older.send(open("a.bin", None)).await;
    let upload_id = older.next().await.unwrap().upload_id;
    dead.kill();
    let mut config = config(&redis, s3.storage(S3Profile::Compatible));
    config.limits.idle_timeout_seconds = 2;
    let gateway = TestGateway::over(config).await;
    let mut newer = gateway.converse().await;
    newer.send(open_with(&upload_id, Takeover::Forbid)).await;
    let status = newer.failure().await;
    assert_eq!(reason(&status).1, "WRITER_ACTIVE");
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    tokio::time::sleep(delay.unwrap()).await;
    let mut newer = gateway.converse().await;
    newer.send(open_with(&upload_id, Takeover::Forbid)).await;
    newer.next().await.unwrap();
}

#[tokio::test]
async fn a_client_that_forbids_takeover_waits_for_its_own_stream_of_a_dead_gateway() {
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let limits = "[limits]\nidle_timeout_seconds = 2\n";
    let process = || gateway_process(&[&redis.toml(), limits, &s3.toml()].concat());
    let (mut dead, alive) = (process(), process());
    let gateways = [&dead, &alive].map(Server::address);
    let gateways = Forwarder::start(gateways).await;
    let client = Client::connect(&format!("http://{}", gateways.address)).unwrap();
    let mut causes = String::new();
    let data = bytes(PART + 100);
    let source = Source::seekable(Cursor::new(data));
    let upload = client.upload(file(), source).takeover(Takeover::Forbid);
    let mut transfer = upload.start();
    while let Some(event) = transfer.next().await {
        match event {
            Event::Opened { .. } => dead.kill(),
            Event::Retrying { cause, .. } => causes += &cause.to_string(),
            Event::Progress(_) => {}
        }
    }
    let uploaded = transfer.finish().await;
    assert_eq!(uploaded.unwrap().upload.phase(), Phase::Complete);
    assert!(causes.contains("[WRITER_ACTIVE]"), "{causes}");
}

/// A broken attempt may reach a gateway late, and take over from the attempt after it.
#[tokio::test]
async fn a_client_is_not_stopped_by_a_stream_of_its_own() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let Pair { here, there, .. } = pair;
    let gateways = [&here, &there].map(|gateway| gateway.grpc.replace("http://", ""));
    let gateways = Forwarder::start(gateways.map(|address| address.parse().unwrap())).await;
    let client = Client::connect(&format!("http://{}", gateways.address)).unwrap();
    let (mut input, source) = duplex(PART);
    let (seen, mut events) = mpsc::unbounded_channel();
    let mut transfer = client.upload(file(), Source::pipe(source)).start();
    let sending = async {
        while let Some(event) = transfer.next().await {
            match event {
                Event::Opened { upload, .. } => drop(seen.send(upload.upload_id)),
                Event::Retrying { cause, .. } => drop(seen.send(cause.to_string())),
                Event::Progress(_) => {}
            }
        }
        transfer.finish().await
    };
    let interfering = async {
        let upload_id = events.recv().await.unwrap();
        here.stop().await;
        assert!(events.recv().await.unwrap().contains("[DRAINING]"));
        assert_eq!(events.recv().await.unwrap(), upload_id);
        let late = take_over(&there, &upload_id).await;
        assert!(events.recv().await.unwrap().contains("[TAKEN_OVER]"));
        assert!(events.recv().await.unwrap().contains("[WRITER_ACTIVE]"));
        late.end().await.unwrap_err();
        input.write_all(&bytes(100)).await.unwrap();
        drop(input);
    };
    let (uploaded, ()) = tokio::join!(sending, interfering);
    assert_eq!(uploaded.unwrap().upload.phase(), Phase::Complete);
}

/// It has no bytes that could be recorded, but its stream is active.
#[tokio::test]
async fn a_stream_that_sends_only_keep_alives_is_active_and_does_not_expire() {
    let gateway = TestGateway::with(|config| config.limits.idle_timeout_seconds = 3).await;
    let (stream, upload_id) = begin(&gateway, None).await;
    let opened = gateway.get(&upload_id).await.unwrap();
    let keeps_alive = async {
        loop {
            stream.send(chunk(0, b"")).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let (mut heartbeats, mut seen) = (0, opened.clone());
    let heartbeats = common::until("four heartbeats", async || {
        let now = gateway.get(&upload_id).await.unwrap();
        heartbeats += usize::from(now.updated_at != seen.updated_at);
        seen = now;
        heartbeats == 4
    });
    tokio::select! {
        () = heartbeats => {}
        () = keeps_alive => unreachable!("it sends keep-alives for ever"),
    }
    assert!(seen.expires_at.unwrap().seconds > opened.expires_at.unwrap().seconds);
    let mut newer = gateway.converse().await;
    newer.send(open_with(&upload_id, Takeover::Forbid)).await;
    assert_eq!(reason(&newer.failure().await).1, "WRITER_ACTIVE");
}

#[tokio::test]
async fn an_unknown_takeover_value_is_refused() {
    let gateway = TestGateway::start().await;
    let open = message(Message::Open(Open {
        target: Some(open::Target::File(FileMetadata::default())),
        takeover: 99,
        ..Open::default()
    }));
    let status = gateway.upload(vec![open]).await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
}

/// A forwarder in front of the store.
async fn through(s3: &S3Backend) -> Forwarder {
    Forwarder::start([s3.endpoint.replace("http://", "").parse().unwrap()]).await
}

/// The storage with the forwarder as its endpoint.
fn forwarded(s3: &S3Backend, store: &Forwarder) -> StorageConfig {
    let mut storage = s3.storage(S3Profile::Compatible);
    if let StoreConfig::S3(s3) = &mut storage.store {
        s3.endpoint = Some(format!("http://{}", store.address).parse().unwrap());
    }
    storage
}
