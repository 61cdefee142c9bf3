//! A record of 50,000 parts in Redis: its memory, how long it takes to read and to open, and what its watchers and readers
//! cost another caller. The parts are written through the port to the state store, not sent.

use std::time::Duration;

use futures::future::try_join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::transport::Channel;
use upload_gateway::state::redis::{Redis, RedisConfig};
use upload_gateway_client::proto::v1::{
    GetUploadRequest, Open, Takeover, UploadRequest, WatchUploadRequest, open::Target,
    upload_request::Message, upload_service_client::UploadServiceClient,
};
use upload_gateway_core::{
    state::{Creation, PartRecord, PartStore, RecordStore, Times},
    upload::{Md5, PART_SIZE, Part, Phase, Plan, StoreLimits, Upload, UploadId, WriterTag},
};

use crate::{
    MIB, Result,
    common::{Conversation, message},
    payload::Payload,
    process::Gateway,
    store::Store,
    through,
};

/// As many parts as any store accepts: Azure's limit.
pub(crate) const PARTS: u32 = 50_000;

/// How many watch the record, and how many read it.
pub(crate) const WATCHERS: usize = 10;
pub(crate) const READERS: usize = 10;

/// How long a reader waits between two reads. Without a pause, ten readers of any record use all processors.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

const LIMITS: StoreLimits = StoreLimits {
    max_parts: PARTS,
    max_part_size: 5 << 30,
    max_object_size: 5 << 40,
    equal_parts: false,
};

/// The number of parts that are recorded at once: few, as by a stream, so that the memory is that of many small writes.
const BATCH: usize = 10;

const READS: usize = 1_000;
const OPENS: usize = 11;

/// The small uploads of the other caller: the number and the size of each.
const SMALL_UPLOADS: usize = 50;
pub(crate) const SMALL_SIZE: u64 = MIB / 16;

/// How often they are measured, alternately alone and beside the others. The best counts, because other load only makes
/// them slower.
const ROUNDS: usize = 5;

/// What the record costs.
#[derive(Debug)]
pub(crate) struct Records {
    /// Of all keys of the record in Redis, in bytes, if the ETags are MD5s.
    pub(crate) memory: u64,
    /// The same, if each ETag has 70 bytes.
    pub(crate) memory_with_long_etags: u64,
    /// The 50th and the 99th percentile of `GetUpload`.
    pub(crate) read: [Duration; 2],
    /// The median time from the open message to the first progress.
    pub(crate) open: Duration,
    /// The median of a small upload alone.
    pub(crate) alone: Duration,
    /// The same beside the watchers and readers.
    pub(crate) beside: Duration,
    /// The same beside watchers, and readers without a pause: of this record, and of one with a single part.
    pub(crate) beside_hasty: [Duration; 2],
}

pub(crate) async fn measure(store: &Store, redis_url: &str, payload: &Payload) -> Result<Records> {
    let gateway = Gateway::start(store, redis_url)?;
    let mut client = UploadServiceClient::connect(gateway.address.clone()).await?;
    let state = Redis::connect(&RedisConfig {
        url: redis_url.parse()?,
        ..RedisConfig::default()
    })
    .await?;
    let sent = through::send(
        client.clone(),
        payload.clone(),
        SMALL_SIZE,
        SMALL_SIZE,
        None,
    )
    .await?;
    let template = state.get(&sent.upload_id.parse()?).await?;
    let template = template.ok_or("the upload has no record")?;
    let long = write(&state, &template, PARTS, |number| format!("{number:070}")).await?;
    let etag = |number: u32| Md5::of(&number.to_be_bytes()).to_hex();
    let id = write(&state, &template, PARTS, etag).await?;
    let single = write(&state, &template, 1, etag).await?;

    let mut reads = Vec::new();
    for _ in 0..READS {
        let begin = Instant::now();
        get(&mut client, &id).await?;
        reads.push(begin.elapsed());
    }
    let mut opens = Vec::new();
    for _ in 0..OPENS {
        opens.push(open(&client, &id).await?);
    }
    let other = UploadServiceClient::connect(gateway.address.clone()).await?;
    let mut alone = Duration::MAX;
    let loads = [
        (&id, PAUSE),
        (&id, Duration::ZERO),
        (&single, Duration::ZERO),
    ];
    let mut beside = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        alone = alone.min(small_uploads(&other, payload).await?);
        for (least, (id, pause)) in beside.iter_mut().zip(loads) {
            let others = watch_and_read(&client, id, pause).await?;
            *least = small_uploads(&other, payload).await?.min(*least);
            drop(others);
        }
    }
    let [beside, beside_hasty @ ..] = beside;
    Ok(Records {
        memory: memory(redis_url, &id).await?,
        memory_with_long_etags: memory(redis_url, &long).await?,
        read: [percentile(&mut reads, 50), percentile(&mut reads, 99)],
        open: percentile(&mut opens, 50),
        alone,
        beside,
        beside_hasty,
    })
}

/// Writes a record of `parts` parts, of the owner and in the storage of `template`.
async fn write(
    state: &Redis,
    template: &Upload,
    parts: u32,
    receipt: impl Fn(u32) -> String,
) -> Result<UploadId> {
    let size = u64::from(parts) * PART_SIZE;
    let writer = WriterTag::random();
    let mut upload = Upload {
        id: UploadId::generate(None),
        version: 1,
        phase: Phase::Open,
        plan: Plan::known(size, PART_SIZE, &LIMITS)?,
        session: Some("session".into()),
        writer: Some(writer),
        object: None,
        ..template.clone()
    };
    upload.file.file_size = Some(size);
    upload.object_key = format!("uploads/{}", upload.id);
    if state.create(&upload, u64::MAX).await? != Creation::Created {
        return Err("the record exists already".into());
    }
    let parts: Vec<Part> = (1..=parts)
        .map(|number| Part {
            number,
            offset: u64::from(number - 1) * PART_SIZE,
            size: PART_SIZE,
            checksum: Some(Md5::of(&number.to_be_bytes()).into()),
            receipt: receipt(number),
            digest: None,
        })
        .collect();
    let times = Times {
        now: upload.updated_at,
        expires_at: upload.expires_at,
    };
    for batch in parts.chunks(BATCH) {
        let recorded = state.record_parts(&upload.id, writer, 1, batch, times);
        match recorded.await? {
            PartRecord::Recorded { .. } => {}
            refused => return Err(format!("parts are not recorded: {refused:?}").into()),
        }
    }
    Ok(upload.id)
}

async fn get(client: &mut UploadServiceClient<Channel>, id: &UploadId) -> Result<()> {
    let request = GetUploadRequest {
        upload_id: id.to_string(),
    };
    let upload = client.get_upload(request).await?.into_inner();
    if upload.part_count == 0 {
        return Err(format!("a record without parts: {upload:?}").into());
    }
    Ok(())
}

/// Opens the upload, and ends the stream after the first progress.
async fn open(client: &UploadServiceClient<Channel>, id: &UploadId) -> Result<Duration> {
    let begin = Instant::now();
    let mut stream = Conversation::begin(client.clone()).await;
    let open = Message::Open(Open {
        target: Some(Target::UploadId(id.to_string())),
        takeover: Takeover::Force.into(),
        ..Open::default()
    });
    let open: UploadRequest = message(open);
    stream.send(open).await;
    stream.next().await?;
    Ok(begin.elapsed())
}

/// The watchers and readers, which have begun and end when this is dropped.
async fn watch_and_read(
    client: &UploadServiceClient<Channel>,
    id: &UploadId,
    pause: Duration,
) -> Result<JoinSet<()>> {
    let mut others = JoinSet::new();
    let watches = (0..WATCHERS).map(|_| {
        let mut client = client.clone();
        let upload_id = id.to_string();
        async move { client.watch_upload(WatchUploadRequest { upload_id }).await }
    });
    for watch in try_join_all(watches).await? {
        let mut progress = watch.into_inner();
        others.spawn(async move { while let Ok(Some(_)) = progress.message().await {} });
    }
    for _ in 0..READERS {
        let (mut client, id) = (client.clone(), id.clone());
        others.spawn(async move {
            while get(&mut client, &id).await.is_ok() {
                sleep(pause).await;
            }
        });
    }
    Ok(others)
}

/// The median time of small uploads, one after the other.
pub(crate) async fn small_uploads(
    client: &UploadServiceClient<Channel>,
    payload: &Payload,
) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..SMALL_UPLOADS {
        let begin = Instant::now();
        through::send(
            client.clone(),
            payload.clone(),
            SMALL_SIZE,
            SMALL_SIZE,
            None,
        )
        .await?;
        times.push(begin.elapsed());
    }
    Ok(percentile(&mut times, 50))
}

/// The memory of all keys of a record, in bytes.
async fn memory(redis_url: &str, id: &UploadId) -> Result<u64> {
    let client = redis::Client::open(redis_url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut keys = redis::cmd("KEYS");
    let keys: Vec<String> = keys
        .arg(format!("*{id}*"))
        .query_async(&mut connection)
        .await?;
    let mut sum = 0;
    for key in keys {
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
        sum += usage.query_async::<u64>(&mut connection).await?;
    }
    Ok(sum)
}

pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    let index = (times.len() * percent / 100).min(last);
    times.get(index).copied().unwrap_or_default()
}
