//! The age of streams: an old one ends between two parts, and its sender resumes over a new connection.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};
use tonic::Code;
use tonic_types::StatusExt;
use upload_gateway_client::{Client, ClientError, Event, Source, proto::v1::ErrorReason};

use crate::common::{self, Forwarder, Server, TestGateway, bytes, gateway_process, open, reason};

const PART: usize = 5 * 1024 * 1024;

/// The age in the tests, in seconds.
const AGE: u64 = 2;

/// Opens a stream that sends no bytes, and returns when it has ended because of its age.
async fn idle_until_it_moves(gateway: &TestGateway) {
    let begun = Instant::now();
    let mut stream = gateway.converse().await;
    stream.send(open("idle.bin", None)).await;
    stream.next().await.unwrap();
    assert_eq!(reason(&stream.failure().await).1, "MOVE_ON");
    assert!(begun.elapsed() >= Duration::from_secs(AGE).mul_f64(0.9));
}

#[tokio::test]
async fn an_old_stream_ends_between_two_parts() {
    let gateway = TestGateway::with(|config| config.limits.stream_age_seconds = AGE).await;
    let mut stream = gateway.converse().await;
    let data = bytes(2 * PART);
    stream.send(open("a.bin", None)).await;
    stream.next().await.unwrap();
    stream.send_in_chunks(0, &data[..PART + 1], 1 << 20).await;
    stream.committed(PART).await;
    // It grows old within its second part, which is not lost.
    for _ in 0..2 {
        idle_until_it_moves(&gateway).await;
    }
    let rest = &data[PART + 1..];
    stream.send_in_chunks(PART + 1, rest, 1 << 20).await;
    let status = stream.failure().await;
    assert_eq!(reason(&status), (Code::Unavailable, "MOVE_ON".into()));
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    assert!(delay.unwrap() < Duration::from_millis(200));
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["committed_size"], (2 * PART).to_string());
}

/// One replica has all streams when a second one joins behind the same address. A stream that moves gets a new connection,
/// so the second replica gets its share of them, and no committed byte is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn streams_move_to_a_replica_that_joins_later() {
    const STREAMS: usize = 12;
    const PARTS: usize = 6;
    let (Some(redis), Some(s3)) = (common::redis().await, common::s3().await) else {
        return;
    };
    let limits = format!("[limits]\nstream_age_seconds = {AGE}\n");
    let toml = [redis.toml(), limits, s3.toml()].concat();
    let first = gateway_process(&toml);
    // Its port is known, and refuses connections for now.
    let mut second: Server = gateway_process(&toml);
    second.stop();
    let gateways = Forwarder::start([first.address(), second.address()]).await;
    let server = format!("http://{}", gateways.address);
    let mut uploads = JoinSet::new();
    for number in 0..STREAMS {
        let server = server.clone();
        uploads.spawn(async move {
            // A client, and so a connection, of its own.
            let client = Client::connect(&server).unwrap();
            let data = bytes(PARTS * PART + number);
            let size = data.len() as u64;
            let (mut moves, mut failures, mut pause) = (0, 0, Duration::ZERO);
            let source = Source::seekable(std::io::Cursor::new(data));
            let upload = client.upload(format!("{number}.bin"), source).size(size);
            let mut transfer = upload.limit_rate((PARTS * PART) as u64 / 8).start();
            while let Some(event) = transfer.next().await {
                let Event::Retrying { cause, delay } = event else {
                    continue;
                };
                let moved = matches!(cause, ClientError::Refused(refusal)
                    if refusal.reason == Some(ErrorReason::MoveOn));
                moves += usize::from(moved);
                failures += usize::from(!moved);
                pause = pause.max(delay);
            }
            transfer.finish().await.unwrap();
            (moves, failures, pause)
        });
    }
    gateways.has_received((STREAMS * PART) as u64).await;
    second.restart();
    let (mut moves, mut failures) = (0, 0);
    while let Some(upload) = uploads.join_next().await {
        let (moved, failed, pause) = upload.unwrap();
        assert!(moved >= 1, "a stream of 8 s with an age of {AGE} s");
        assert!(pause < Duration::from_millis(200), "{pause:?}");
        moves += moved;
        failures += failed;
    }
    assert_eq!(failures, 0, "no other failure in {moves} moves");
    let log = second.log();
    let completed = log.matches("an upload ended").count();
    assert!(
        completed * 100 >= STREAMS * 15,
        "the second replica finished {completed} of {STREAMS}"
    );
    // What is sent twice was in flight when a stream ended: less than a window and two chunks for each move.
    let sent = usize::try_from(gateways.received()).unwrap();
    let files = STREAMS * PARTS * PART;
    let twice = sent.saturating_sub(files + files / 100);
    assert!(twice <= moves * (1 << 20), "{twice} bytes in {moves} moves");
}
