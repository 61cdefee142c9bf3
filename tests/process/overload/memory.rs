//! Streams that share a small memory budget.

use tonic::Code;
use upload_gateway::config::ByteSize;
use upload_gateway_core::upload::PART_SIZE;

use super::{
    PART,
    common::{TestGateway, bytes, chunk, finish, open, reason},
};

/// Slow senders that only keep their streams alive must not occupy all the memory.
#[tokio::test]
async fn the_slowest_stream_ends_if_others_need_its_memory() {
    let gateway = TestGateway::with(|config| {
        config.limits.memory_budget = ByteSize(4 * PART_SIZE);
        config.limits.store_retry_timeout_seconds = 2;
    })
    .await;
    let most = bytes(PART - 1);
    // Three use the whole budget, the fourth its reserve.
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = gateway.converse().await;
        stream.send(open("slow.bin", None)).await;
        stream.next().await.unwrap();
        stream.send_in_chunks(0, &most, 1 << 20).await;
        while stream.next().await.unwrap().received_size < i64::try_from(most.len()).unwrap() {}
        slow.push(stream);
    }
    let data = bytes(3 * PART);
    let pieces = data.chunks(1 << 20).enumerate();
    let mut messages = vec![open("fast.bin", None)];
    messages.extend(pieces.map(|(index, piece)| chunk(index << 20, piece)));
    messages.push(finish());
    let upload = gateway.upload(messages).await.unwrap();
    assert!(gateway.read(&upload).await == data);
    // The slowest stream was ended, with an error that means: resume later.
    let status = slow.remove(0).end().await.unwrap_err();
    assert_eq!(reason(&status), (Code::Unavailable, "OVERLOADED".into()));
}

/// One part in flight, for files that end at part boundaries.
#[tokio::test]
async fn one_part_in_flight_and_the_smallest_budget_are_enough() {
    let gateway = TestGateway::with(|config| {
        config.limits.memory_budget = ByteSize(4 * PART_SIZE);
        (
            config.limits.parts_in_flight,
            config.limits.parts_in_flight_total,
        ) = (1, 1);
    })
    .await;
    let data = bytes(3 * PART);
    let uploads = (0..6).map(|index| {
        let (gateway, data) = (&gateway, &data);
        async move {
            let size = data.len() - (index % 3) * PART;
            let pieces = data[..size].chunks(700_000).enumerate();
            let mut messages = vec![open("a.bin", None)];
            messages.extend(pieces.map(|(index, piece)| chunk(index * 700_000, piece)));
            messages.push(finish());
            let upload = gateway.upload(messages).await.unwrap();
            assert!(gateway.read(&upload).await == data[..size]);
        }
    });
    futures::future::join_all(uploads).await;
}
