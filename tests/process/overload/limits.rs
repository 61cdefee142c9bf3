//! The number of streams, and their minimum rate.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};
use tonic::Code;
use tonic_types::StatusExt;
use upload_gateway::config::{ByteSize, Config, S3Profile, StoreConfig};
use upload_gateway_client::{Client, Event, RetryPolicy, Source, proto::v1::Phase};

use super::{
    PART,
    common::{
        self, Conversation, Forwarder, TestGateway, WAIT_TIMEOUT, bytes, chunk, finish, open,
        reason,
    },
};

#[tokio::test]
async fn a_stream_above_the_limit_is_refused_with_its_first_message() {
    let gateway = TestGateway::with(|config| config.limits.max_streams = 2).await;
    // Streams that have sent nothing do not count.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(gateway.converse().await);
    }
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = gateway.converse().await;
        stream.send(open("a.bin", None)).await;
        stream.next().await.unwrap();
        streams.push(stream);
    }
    let mut stream = gateway.converse().await;
    stream.send(open("b.bin", None)).await;
    let status = stream.failure().await;
    assert_eq!(
        reason(&status),
        (Code::ResourceExhausted, "OVERLOADED".into())
    );
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    assert!(delay.unwrap() >= Duration::from_secs(1));
    // The end of one stream admits the next.
    let _ = streams.pop().unwrap().end().await;
    let upload = gateway.upload(vec![open("b.bin", None), finish()]).await;
    assert_eq!(upload.unwrap().phase(), Phase::Complete);
}

/// A gateway that requires 1 MiB a second, measured over one second.
async fn demanding() -> TestGateway {
    TestGateway::with(|config| {
        config.limits.min_rate = ByteSize(1 << 20);
        config.limits.min_rate_seconds = 1;
    })
    .await
}

#[tokio::test]
async fn a_stream_below_the_minimum_rate_ends_and_its_complete_parts_stay() {
    let gateway = demanding().await;
    for trickle in [&b""[..], b"x"] {
        let mut stream = gateway.converse().await;
        stream.send(open("a.bin", None)).await;
        let upload_id = stream.next().await.unwrap().upload_id;
        stream.send_in_chunks(0, &bytes(PART), 1 << 20).await;
        let trickling = async {
            let mut offset = PART;
            loop {
                stream.send(chunk(offset, trickle)).await;
                offset += trickle.len();
                let progress = timeout(Duration::from_millis(50), stream.next()).await;
                if let Ok(Err(status)) = progress {
                    return status;
                }
            }
        };
        let status = timeout(WAIT_TIMEOUT, trickling).await.unwrap();
        assert_eq!(reason(&status), (Code::Unavailable, "TOO_SLOW".into()));
        assert!(status.get_details_retry_info().is_some());
        let upload = gateway.get(&upload_id).await.unwrap();
        assert_eq!(upload.committed_size, i64::try_from(PART).unwrap());
    }
}

#[tokio::test]
async fn a_stream_with_pauses_between_its_bursts_continues() {
    let gateway = demanding().await;
    let data = bytes(3 * PART);
    let stream = gateway.converse().await;
    stream.send(open("a.bin", Some(data.len()))).await;
    for (index, burst) in data.chunks(PART).enumerate() {
        stream.send_in_chunks(index * PART, burst, 1 << 20).await;
        sleep(Duration::from_millis(700)).await;
    }
    stream.send(finish()).await;
    assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
}

/// The source of a pipe may pause, as a backup does between two tables.
#[tokio::test]
async fn a_pipe_with_a_long_pause_is_uploaded() {
    let gateway = demanding().await;
    let client = Client::connect(&gateway.grpc).unwrap();
    let (mut input, pipe) = tokio::io::duplex(1 << 20);
    let data = bytes(3 << 20);
    let writing = async {
        input.write_all(&data[..1 << 20]).await.unwrap();
        // Longer than the client's keep-alive interval of 15 s. The keep-alive shows the gateway that the stream is too
        // slow.
        sleep(Duration::from_secs(20)).await;
        input.write_all(&data[1 << 20..]).await.unwrap();
        drop(input);
    };
    let retry = RetryPolicy {
        timeout: Duration::from_secs(10),
        ..RetryPolicy::default()
    };
    let mut refused = String::new();
    let upload = client.upload("a.bin", Source::pipe(pipe)).retry(retry);
    let mut transfer = upload.start();
    let uploading = async {
        while let Some(event) = transfer.next().await {
            if let Event::Retrying { cause, .. } = event {
                refused = cause.to_string();
            }
        }
        transfer.finish().await
    };
    let ((), uploaded) = tokio::join!(writing, uploading);
    assert!(gateway.read(&uploaded.unwrap().upload).await == data);
    assert!(refused.contains("TOO_SLOW"), "{refused:?}");
}

/// While the store does not answer, the gateway does not read: the sender is not slow.
#[tokio::test]
async fn time_in_which_the_gateway_does_not_read_does_not_count() {
    /// Twice the time over which the rate is measured.
    const OUTAGE: Duration = Duration::from_secs(2);
    let Some(s3) = common::s3().await else {
        return;
    };
    let store = Forwarder::start([s3.endpoint.replace("http://", "").parse().unwrap()]).await;
    let directory = tempfile::TempDir::new().unwrap();
    let mut storage = s3.storage(S3Profile::Compatible);
    if let StoreConfig::S3(s3) = &mut storage.store {
        s3.endpoint = Some(format!("http://{}", store.address).parse().unwrap());
    }
    let mut config = Config {
        data_dir: directory.path().join("data"),
        storage: vec![storage],
        ..Config::default()
    };
    config.limits.min_rate = ByteSize(1 << 20);
    config.limits.min_rate_seconds = 1;
    config.limits.parts_in_flight = 1;
    let gateway = TestGateway::over(config).await;
    let data = bytes(3 * PART);
    let stream: Conversation = gateway.converse().await;
    stream.send(open("a.bin", Some(data.len()))).await;
    store.hold();
    let received = store.received();
    let began = Instant::now();
    let sending = async {
        stream.send_in_chunks(0, &data, 1 << 18).await;
        stream.send(finish()).await;
    };
    let outage = async {
        store.has_received(received + 1).await;
        sleep(OUTAGE).await;
        store.release();
    };
    tokio::join!(sending, outage);
    assert!(began.elapsed() >= OUTAGE, "nothing held the sender");
    let upload = timeout(WAIT_TIMEOUT, stream.end()).await.unwrap().unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
}
