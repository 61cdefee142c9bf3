//! Many streams: slow ones beside a fast one, and fast ones that share too little memory.

use std::{fs, io::Cursor, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use upload_gateway_client::{
    Client, Source,
    proto::v1::{Phase, UploadRequest, upload_service_client::UploadServiceClient},
};

use super::{
    common::{self, Conversation, Server, WAIT_TIMEOUT, bytes, chunk, finish, open},
    discard, gateway,
};

const MIB: usize = 1 << 20;

async fn connect(gateway: &Server) -> UploadServiceClient<Channel> {
    let endpoint = Endpoint::new(format!("http://{}", gateway.address())).unwrap();
    let channel = endpoint
        .initial_connection_window_size(64 << 20)
        .connect()
        .await;
    UploadServiceClient::new(channel.unwrap())
}

/// A whole file as messages of 256 KiB.
fn messages(size: Option<usize>, data: &[u8]) -> Vec<UploadRequest> {
    let chunks = data.chunks(MIB / 4).enumerate();
    let mut messages = vec![open("a.bin", size)];
    messages.extend(chunks.map(|(index, piece)| chunk(index * (MIB / 4), piece)));
    messages.push(finish());
    messages
}

async fn upload(client: &UploadServiceClient<Channel>, messages: &[UploadRequest]) {
    let sent = tokio_stream::iter(messages.to_vec());
    let uploaded = client.clone().upload(sent).await.unwrap().into_inner();
    assert_eq!(uploaded.upload.unwrap().phase(), Phase::Complete);
}

/// Half of them send nothing, the others a byte a second.
async fn slow_streams(client: &UploadServiceClient<Channel>, count: usize) -> Vec<Conversation> {
    let opened = join_all((0..count).map(|_| async {
        let mut stream = Conversation::begin(client.clone()).await;
        stream.send(open("slow.bin", None)).await;
        stream.next().await.unwrap();
        stream
    }));
    opened.await
}

async fn trickle(streams: &[Conversation]) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for offset in 0.. {
        tick.tick().await;
        join_all(
            streams
                .iter()
                .map(|stream| stream.send(chunk(offset, b"x"))),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_stream_finishes_beside_five_hundred_slow_ones() {
    let Some(redis) = common::redis().await else {
        return;
    };
    let gateway = gateway(
        &redis,
        &[discard::serve(discard::store(), Arc::default())
            .await
            .unwrap()],
        "",
    );
    let client = connect(&gateway).await;
    let mut slow = slow_streams(&client, 500).await;
    let (silent, trickling) = slow.split_at(250);
    let data = bytes(64 * MIB);
    let file = messages(Some(data.len()), &data);
    let uploading = upload(&client, &file);
    tokio::select! {
        uploaded = timeout(WAIT_TIMEOUT, uploading) => uploaded.unwrap(),
        () = trickle(trickling) => unreachable!("it sends for ever"),
    }
    // All slow streams are still open.
    join_all(silent.iter().map(|stream| stream.send(finish()))).await;
    let ended = join_all(slow.drain(..250).map(Conversation::end)).await;
    assert!(ended.iter().all(Result::is_ok));
}

/// Six times the budget, in parts none of which becomes full. Clients that are refused retry later.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_uploads_share_a_small_budget_and_all_finish() {
    const UPLOADS: usize = 1000;
    const SIZE: usize = 3 * MESSAGE;
    const BUDGET: usize = 64 * MIB;
    const WINDOW: usize = 64 * 1024;
    const MESSAGE: usize = MIB / 8;
    let Some(redis) = common::redis().await else {
        return;
    };
    let limits = "memory_budget = \"64MiB\"\nstream_window = \"64KiB\"";
    let gateway = gateway(
        &redis,
        &[discard::serve(discard::store(), Arc::default())
            .await
            .unwrap()],
        limits,
    );
    let client = Client::connect(&format!("http://{}", gateway.address())).unwrap();
    let data = Bytes::from(bytes(SIZE));
    let upload = || async {
        let source = Source::seekable(Cursor::new(data.clone()));
        let uploaded = client.upload("a.bin", source).chunk_size(MESSAGE).await;
        assert_eq!(uploaded.unwrap().size, SIZE as u64);
    };
    upload().await;
    // A debug build alone needs more than a release build may use beside the budget and the streams.
    let base = peak_memory(&gateway);
    let uploads = join_all((0..UPLOADS).map(|_| upload()));
    timeout(Duration::from_secs(240), uploads).await.unwrap();
    let taken = peak_memory(&gateway) - base;
    let bound = BUDGET + 64 * MIB + UPLOADS * (WINDOW + MESSAGE);
    assert!(
        taken <= bound,
        "{} MiB, more than {}",
        taken / MIB,
        bound / MIB
    );
}

/// The peak memory of the process, in bytes.
fn peak_memory(process: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<usize>().unwrap() * 1024
}
