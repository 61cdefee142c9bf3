//! Many streams at once: one fast stream beside slow ones on its connection, and many uploads that share little memory.

use std::{io::Cursor, time::Duration};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, interval};
use tonic::transport::Channel;
use upload_gateway_client::{
    Client, Source, proto::v1::upload_service_client::UploadServiceClient,
};

use crate::{
    GIB, Load, MIB, Result,
    common::{Conversation, chunk, open},
    payload::Payload,
    process::Gateway,
    store::Store,
    through,
};

/// The number of slow streams: half of them silent, half of them with one byte per second.
pub(crate) const SLOW: usize = 500;

/// The number of uploads that share the memory, and the size of each: together six times the budget.
pub(crate) const UPLOADS: u64 = 1000;
pub(crate) const UPLOAD_SIZE: u64 = 24 * MESSAGE;

/// The memory budget that they share, and what each may use besides, in bytes: its window and some more.
pub(crate) const BUDGET: u64 = 64 * MIB;
pub(crate) const WINDOW: u64 = MIB / 16;
pub(crate) const REST: u64 = MIB / 64;

/// The size of their messages in bytes.
const MESSAGE: u64 = MIB / 16;

/// How often each of the two is measured, alternately. The best counts, because other load only makes it slower.
const ROUNDS: usize = 3;

/// A fast stream, alone and beside slow ones.
#[derive(Debug)]
pub(crate) struct Neighbours {
    pub(crate) load: Load,
    pub(crate) alone: Duration,
    pub(crate) beside: Duration,
}

/// The memory that many uploads with a small budget used.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) elapsed: Duration,
    /// In bytes.
    pub(crate) peak_memory: u64,
}

/// How long a file takes alone, and beside slow streams on its connection.
pub(crate) async fn neighbours(
    store: &Store,
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Neighbours> {
    let gateway = Gateway::start(store, redis_url)?;
    let client = UploadServiceClient::connect(gateway.address.clone()).await?;
    let load = Load {
        streams: 1,
        file_size: if quick { 64 * MIB } else { GIB },
    };
    let upload = async || {
        let begin = Instant::now();
        let sent = through::send(
            client.clone(),
            payload.clone(),
            load.file_size,
            MIB / 4,
            None,
        );
        sent.await.map(|_| begin.elapsed())
    };
    upload().await?;
    let (mut alone, mut beside) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        alone = alone.min(upload().await?);
        let slow = join_all((0..SLOW).map(|_| begin_slow(&client))).await;
        tokio::select! {
            took = upload() => beside = beside.min(took?),
            () = trickle(&slow[SLOW / 2..]) => {}
        }
    }
    Ok(Neighbours {
        load,
        alone,
        beside,
    })
}

async fn begin_slow(client: &UploadServiceClient<Channel>) -> Conversation {
    let mut stream = Conversation::begin(client.clone()).await;
    stream.send(open("slow.bin", None)).await;
    // The stream is open once it is answered; one that is not open yet delays no other.
    let _ = stream.next().await;
    stream
}

/// Sends one byte per second on each, without end.
async fn trickle(streams: &[Conversation]) {
    let mut tick = interval(Duration::from_secs(1));
    for offset in 0.. {
        tick.tick().await;
        join_all(streams.iter().map(|one| one.send(chunk(offset, b"x")))).await;
    }
}

/// Uploads many files at once with a small budget; refused uploads are retried after the requested time, until all are
/// complete.
pub(crate) async fn crowd(store: &Store, redis_url: &str, payload: &Payload) -> Result<Crowd> {
    let limits = format!("[limits]\nmemory_budget = {BUDGET}\nstream_window = {WINDOW}\n");
    let gateway = Gateway::configured(store, redis_url, &limits)?;
    let client = Client::connect(&gateway.address)?;
    let piece = payload.pieces(UPLOAD_SIZE, UPLOAD_SIZE).next();
    let (_, data) = piece.ok_or("an empty file")?;
    let begin = Instant::now();
    try_join_all((0..UPLOADS).map(|_| upload(&client, data.clone()))).await?;
    Ok(Crowd {
        elapsed: begin.elapsed(),
        peak_memory: gateway.peak_memory()?,
    })
}

async fn upload(client: &Client, data: Bytes) -> Result<()> {
    let source = Source::seekable(Cursor::new(data));
    let upload = client.upload("crowd.bin", source);
    upload.chunk_size(usize::try_from(MESSAGE)?).await?;
    Ok(())
}
