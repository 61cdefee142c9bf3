//! Drain: a gateway that stops accepts nothing new, ends streams at a part boundary, and finishes quick commits. Streams
//! resume at other replicas, and uploads survive a rolling restart.

use std::{
    fs,
    process::{Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tonic::{Code, Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;
use upload_gateway::config::{Config, S3Profile, StoreConfig};
use upload_gateway_client::proto::v1::{Phase, upload_service_client::UploadServiceClient};
use upload_gateway_core::upload::Crc64Nvme;

use crate::common::{
    self, Conversation, Forwarder, Server, TestGateway, WAIT_TIMEOUT, binary, bytes, chunk, finish,
    gateway_process, open, reason,
};

const PART: usize = 5 * 1024 * 1024;

/// A stream on a new upload, and its id.
async fn begin(gateway: &TestGateway, size: Option<usize>) -> (Conversation, String) {
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", size)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    (stream, upload_id)
}

fn committed_size(status: &Status) -> usize {
    assert_eq!(reason(status), (Code::Unavailable, "DRAINING".into()));
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    assert!(delay.unwrap() < Duration::from_secs(2));
    let info = status.get_details_error_info().unwrap();
    info.metadata["committed_size"].parse().unwrap()
}

/// Begins to stop the gateway, and returns once it reports that it is not ready.
async fn stop(gateway: TestGateway) -> tokio::task::JoinHandle<Config> {
    let channel = Endpoint::new(gateway.grpc.clone()).unwrap().connect_lazy();
    let mut health = HealthClient::new(channel);
    let watched = health.watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    let mut status = async || {
        watched
            .message()
            .await
            .unwrap()
            .map(|answer| answer.status())
    };
    assert_eq!(status().await, Some(ServingStatus::Serving));
    let stopping = tokio::spawn(gateway.stop());
    assert_eq!(status().await, Some(ServingStatus::NotServing));
    // A health watch that continued would keep the gateway from ending.
    assert_eq!(status().await, None);
    stopping
}

#[tokio::test]
async fn a_stream_continues_to_the_end_of_its_part() {
    let gateway = TestGateway::start().await;
    let data = bytes(3 * PART);
    let (mut stream, _) = begin(&gateway, Some(data.len())).await;
    let half = PART + PART / 2;
    stream.send_in_chunks(0, &data[..half], 700_000).await;
    stream.committed(PART).await;
    let stopping = stop(gateway).await;
    // Nothing after the part boundary is accepted, not even from the message that crosses it.
    stream.send_in_chunks(half, &data[half..], 700_000).await;
    assert_eq!(committed_size(&stream.failure().await), 2 * PART);
    drop(stream);
    timeout(WAIT_TIMEOUT, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_at_a_part_boundary_ends_at_once() {
    let gateway = TestGateway::start().await;
    let (mut stream, _) = begin(&gateway, None).await;
    stream.send_in_chunks(0, &bytes(PART), 1 << 20).await;
    stream.committed(PART).await;
    let begun = Instant::now();
    let stopping = stop(gateway).await;
    assert_eq!(committed_size(&stream.failure().await), PART);
    drop(stream);
    timeout(WAIT_TIMEOUT, stopping).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_stream_within_a_part_ends_at_the_drain_deadline() {
    let gateway = TestGateway::with(|config| config.limits.drain_seconds = 1).await;
    let (mut stream, _) = begin(&gateway, None).await;
    stream.send_in_chunks(0, &bytes(PART + 10), 1 << 20).await;
    stream.committed(PART).await;
    let stopping = stop(gateway).await;
    assert_eq!(committed_size(&stream.failure().await), PART);
    drop(stream);
    timeout(WAIT_TIMEOUT, stopping).await.unwrap().unwrap();
}

/// Streams that do not end by themselves are ended when the gateway stops, and can resume at another gateway.
#[tokio::test]
async fn a_stream_that_outlasts_the_drain_ends_as_draining() {
    let gateway = TestGateway::with(|config| config.limits.drain_seconds = 1).await;
    let data = bytes(PART);
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    stream.next().await.unwrap();
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.committed(PART).await;
    let stopped = tokio::spawn(gateway.stop());
    let status = timeout(Duration::from_secs(20), stream.failure()).await;
    assert_eq!(
        reason(&status.unwrap()),
        (Code::Unavailable, "DRAINING".into())
    );
    stopped.await.unwrap();
}

/// Less is missing than would have to be sent again.
#[tokio::test]
async fn an_almost_complete_file_is_finished() {
    for size in [300, PART + 300] {
        let gateway = TestGateway::start().await;
        let data = bytes(size);
        let (mut stream, _) = begin(&gateway, Some(size)).await;
        let (sent, rest) = data.split_at(size - 100);
        stream.send_in_chunks(0, sent, 1 << 20).await;
        let all = i64::try_from(sent.len()).unwrap();
        while stream.next().await.unwrap().received_size < all {}
        let stopping = stop(gateway).await;
        stream.send(chunk(sent.len(), rest)).await;
        stream.send(finish()).await;
        assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
        timeout(WAIT_TIMEOUT, stopping).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_running_commit_is_finished() {
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let store = Forwarder::start([s3.endpoint.replace("http://", "").parse().unwrap()]).await;
    let mut storage = s3.storage(S3Profile::Compatible);
    if let StoreConfig::S3(s3) = &mut storage.store {
        s3.endpoint = Some(format!("http://{}", store.address).parse().unwrap());
    }
    let config = Config {
        redis_url: Some(redis.url.parse().unwrap()),
        storage: vec![storage],
        ..Config::default()
    };
    let gateway = TestGateway::over(config.clone()).await;
    let other = TestGateway::over(config).await;
    let data = bytes(PART + 10);
    let (mut stream, upload_id) = begin(&gateway, Some(data.len())).await;
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.committed(PART).await;
    stream.send(finish()).await;
    // The last part may be in flight, and the commit may wait for its first answer: both are finished.
    store.hold();
    let stopping = stop(gateway).await;
    store.release();
    let upload = timeout(WAIT_TIMEOUT, stream.end()).await.unwrap().unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
    timeout(WAIT_TIMEOUT, stopping).await.unwrap().unwrap();
    assert_eq!(
        other.get(&upload_id).await.unwrap().phase(),
        Phase::Complete
    );
}

#[tokio::test]
async fn a_draining_gateway_accepts_nothing_new() {
    let gateway = TestGateway::start().await;
    let (grpc, http) = (gateway.grpc.clone(), gateway.http.clone());
    let mut client = gateway.client().await;
    let (_stream, _) = begin(&gateway, None).await;
    // Keeps the gateway draining until the drain time is over.
    let (within, _) = begin(&gateway, None).await;
    within.send(chunk(0, b"some bytes of a part")).await;
    let _stopping = stop(gateway).await;
    let messages = tokio_stream::iter([open("b.bin", None), finish()]);
    let status = client.upload(messages).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let endpoint = Endpoint::new(grpc).unwrap();
    assert!(endpoint.connect().await.is_err());
    assert!(reqwest::get(format!("{http}/readyz")).await.is_err());
}

async fn converse(server: &Server) -> Conversation {
    let address = format!("http://{}", server.address());
    Conversation::begin(UploadServiceClient::connect(address).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_an_empty_stream_ends_before_its_drain_deadline() {
    let mut server = gateway_process("");
    let stream = converse(&server).await;
    stream.send(open("a.bin", None)).await;
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let mut server = gateway_process("");
    let mut at_border = converse(&server).await;
    at_border.send(open("a.bin", None)).await;
    at_border.next().await.unwrap();
    let mut within = converse(&server).await;
    within.send(open("b.bin", None)).await;
    within.next().await.unwrap();
    within.send(chunk(0, b"some bytes of a part")).await;
    while within.next().await.unwrap().received_size == 0 {}
    server.signal("TERM");
    assert_eq!(committed_size(&at_border.failure().await), 0);
    let second = Instant::now();
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1));
    assert!(second.elapsed() < Duration::from_secs(5));
}

/// Three replicas behind one address restart in turn while files are put through them.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_survive_a_rolling_restart_under_load() {
    const PUTS: usize = 6;
    const SIZE: usize = 24 * 1024 * 1024 + 7;
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let toml = [
        redis.toml(),
        "[limits]\ndrain_seconds = 5\n".into(),
        s3.toml(),
    ]
    .concat();
    let mut replicas: Vec<Server> = (0..3).map(|_| gateway_process(&toml)).collect();
    let gateways = Forwarder::start(replicas.iter().map(Server::address)).await;
    let directory = TempDir::new().unwrap();
    let data = bytes(SIZE);
    let path = directory.path().join("file.bin");
    fs::write(&path, &data).unwrap();

    let mut puts = JoinSet::new();
    for number in 0..PUTS {
        let mut put = binary();
        // The same file by the same name is sent by one process only.
        put.args(["put", path.to_str().unwrap(), "--json", "--name"])
            .arg(number.to_string())
            .args(["--limit-rate", "2MiB"])
            .args(["--server", &format!("http://{}", gateways.address)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let put = put.spawn().unwrap();
        puts.spawn_blocking(move || put.wait_with_output().unwrap());
    }
    // Each put has begun, so that each one experiences a restart.
    gateways.has_received((PUTS * PART) as u64).await;
    for replica in &mut replicas {
        tokio::task::block_in_place(|| {
            replica.stop();
            replica.restart();
        });
    }
    assert!(
        !puts.is_empty() && puts.try_join_next().is_none(),
        "the load ended too early"
    );
    let mut resumed = 0;
    while let Some(put) = puts.join_next().await {
        let output: Output = put.unwrap();
        assert!(output.status.success(), "{output:?}");
        let put: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(put["crc64nvme"], Crc64Nvme::of(&data).to_string());
        resumed += usize::from(put["resumed_from"].as_u64() > Some(0));
        let key = put["object_key"].as_str().unwrap();
        let object = s3.client().get_object().bucket(&s3.bucket).key(key);
        let stored = object.send().await.unwrap().body.collect().await.unwrap();
        assert!(stored.to_vec() == data, "the object is not the file");
    }
    assert!(
        resumed >= PUTS / 2,
        "only {resumed} resumed after a restart"
    );
}

#[tokio::test]
async fn a_dropped_server_leaves_nothing_running() {
    let directory = TempDir::new().unwrap();
    let gateway = TestGateway::over(Config {
        data_dir: directory.path().to_owned(),
        ..Config::default()
    })
    .await;
    // It serves.
    let (stream, _) = begin(&gateway, Some(PART)).await;
    drop((stream, gateway));

    // The state is locked as long as a task uses it.
    let state = fs::File::open(directory.path().join("state.redb")).unwrap();
    common::until("the state is released", async || state.try_lock().is_ok()).await;
}
