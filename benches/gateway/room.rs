//! Many small files while Redis has room for few of their records: uploads continue, the oldest records are removed, and every
//! id answers.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use upload_gateway_client::proto::v1::{
    GetUploadRequest, Phase, upload_service_client::UploadServiceClient,
};

use crate::{Result, common, payload::Payload, process::Gateway, store::Store, through};

/// The number of files, and of a smoke test.
const FILES: u64 = 100_000;
const FEW: u64 = 5_000;

/// The memory of Redis, and of a smoke test, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;
const LITTLE: u64 = 8 * 1024 * 1024;

/// The size of each file, in bytes.
const SIZE: u64 = 1_024;

/// How many are sent, or read, at once, and over how many connections.
const AT_ONCE: usize = 64;
const CONNECTIONS: usize = 4;

/// A key that exists for this benchmark only, and no limit of rebuilds that would be measured instead.
const CONFIG: &str = "[[records.key]]\nid = \"bench\"\nkey = \"YmVuY2htYXJrLWJlbmNobWFyay1iZW5jaG1hcmstISE=\"\n\
                      [limits]\nrebuilds_per_second = 100_000\n";

/// How often the memory of Redis is read.
const INTERVAL: Duration = Duration::from_millis(200);

/// What happened.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) files: u64,
    /// The limit of Redis, in bytes.
    pub(crate) memory: u64,
    /// The most that Redis used while files were sent, and while they were read.
    pub(crate) peaks: [u64; 2],
    /// How long sending and reading all files took.
    pub(crate) times: [Duration; 2],
    /// How many files were refused, and the first reason.
    pub(crate) refused: (u64, Option<String>),
    /// How many files had no record any more when all were sent.
    pub(crate) removed: u64,
    /// How many ids did not answer, and the first reason.
    pub(crate) unanswered: (u64, Option<String>),
}

/// Measures it with files in `store`, and a Redis of its own.
pub(crate) async fn measure(store: &Store, payload: &Payload, quick: bool) -> Result<Room> {
    let (files, memory) = if quick {
        (FEW, LITTLE)
    } else {
        (FILES, MEMORY)
    };
    let limit = memory.to_string();
    let redis = common::private_redis(&["--appendonly", "no", "--maxmemory", &limit]);
    let (_redis, url) = redis.ok_or("there is no redis-server")?;
    let gateway = Gateway::configured(store, &url, CONFIG)?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = Endpoint::from_shared(gateway.address.clone())?
            .connect()
            .await?;
        clients.push(UploadServiceClient::new(channel));
    }

    let meter = Meter::start(&url)?;
    let begin = Instant::now();
    let sent = (0..files).zip(clients.iter().cycle()).map(|(_, client)| {
        let sent = through::send(client.clone(), payload.clone(), SIZE, SIZE, None);
        async { sent.await.map(|upload| upload.upload_id) }
    });
    let sent: Vec<_> = stream::iter(sent).buffer_unordered(AT_ONCE).collect().await;
    let sending = (begin.elapsed(), meter.end().await?);
    let (ids, refused) = split(sent);
    let removed = (ids.len() as u64).saturating_sub(records(&url).await?);

    let meter = Meter::start(&url)?;
    let begin = Instant::now();
    let read = ids.into_iter().zip(clients.iter().cycle());
    let read = read.map(|(id, client)| get(client.clone(), id));
    let read: Vec<_> = stream::iter(read).buffer_unordered(AT_ONCE).collect().await;
    let reading = (begin.elapsed(), meter.end().await?);
    let (_, unanswered) = split(read);
    Ok(Room {
        files,
        memory,
        peaks: [sending.1, reading.1],
        times: [sending.0, reading.0],
        refused,
        removed,
        unanswered,
    })
}

/// Reads an upload, again if the gateway asks for that.
async fn get(mut client: UploadServiceClient<Channel>, id: String) -> Result<()> {
    let mut tries = 0..10;
    loop {
        let request = GetUploadRequest {
            upload_id: id.clone(),
        };
        match client.get_upload(request).await {
            Ok(upload) if upload.get_ref().phase() == Phase::Complete => return Ok(()),
            Ok(upload) => return Err(format!("not COMPLETE: {upload:?}").into()),
            Err(status) if status.code() == Code::Unavailable && tries.next().is_some() => {
                sleep(INTERVAL).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

/// What succeeded; how many did not, and the first reason.
fn split<T>(all: Vec<Result<T>>) -> (Vec<T>, (u64, Option<String>)) {
    let (mut done, mut failed) = (Vec::new(), (0, None));
    for one in all {
        match one {
            Ok(one) => done.push(one),
            Err(error) => {
                failed.0 += 1;
                failed.1.get_or_insert_with(|| error.to_string());
            }
        }
    }
    (done, failed)
}

/// How many uploads a server has.
async fn records(url: &str) -> Result<u64> {
    let mut connection = connect(url).await?;
    let mut count = redis::cmd("ZCARD");
    let count = count.arg("upload-gateway:due");
    Ok(count.query_async(&mut connection).await?)
}

async fn connect(url: &str) -> Result<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    Ok(client.get_multiplexed_async_connection().await?)
}

/// Measures the most memory that a server uses.
struct Meter {
    stop: watch::Sender<()>,
    peak: tokio::task::JoinHandle<Result<u64>>,
}

// === impl Meter ===

impl Meter {
    fn start(url: &str) -> Result<Self> {
        let client = redis::Client::open(url)?;
        let (stop, mut stopped) = watch::channel(());
        let peak = tokio::spawn(async move {
            let mut connection = client.get_multiplexed_async_connection().await?;
            let mut peak = 0;
            loop {
                let mut info = redis::cmd("INFO");
                let report: String = info.arg("memory").query_async(&mut connection).await?;
                let used = report
                    .lines()
                    .find_map(|line| line.strip_prefix("used_memory:"));
                peak = peak.max(used.ok_or("no used_memory")?.trim().parse()?);
                tokio::select! {
                    _ = stopped.changed() => return Ok(peak),
                    () = sleep(INTERVAL) => {}
                }
            }
        });
        Ok(Self { stop, peak })
    }

    async fn end(self) -> Result<u64> {
        drop(self.stop);
        self.peak.await?
    }
}
