//! Lists of uploads, over a million records of one owner: how long a page takes, filters that find nothing included, what
//! the indexes take in Redis, and what a hundred lists at once cost another caller. Over Redis and over the embedded state
//! store. The records are written through the port to the state store.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use redis::AsyncConnectionConfig;
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::Channel;
use upload_gateway::state::{
    redb::Redb,
    redis::{Redis, RedisConfig},
};
use upload_gateway_client::proto::v1::{
    ListUploadsRequest, Phase, upload_service_client::UploadServiceClient,
};
use upload_gateway_core::{
    state::StateStore,
    upload::{Timestamp, Upload, UploadId},
};

use crate::{
    Result,
    payload::Payload,
    process::Gateway,
    records::{SMALL_SIZE, percentile, small_uploads},
    store::Store,
    through,
};

/// The number of records, and of a smoke test.
const RECORDS: u64 = 1_000_000;
const FEW: u64 = 50_000;

/// How many are written at once.
const WRITES: usize = 256;

/// How many pages of each list are measured, and the lists that run at once.
const PAGES: usize = 200;
pub(crate) const LISTS: usize = 100;

/// How often small uploads are measured, alternately alone and beside the lists. The best counts.
const ROUNDS: usize = 3;

/// Small uploads beside lists have few connections, as those of several services.
const CONNECTIONS: usize = 10;

/// How long Redis may take to report its memory.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(60);

/// What lists cost over one state store.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) store: &'static str,
    pub(crate) records: u64,
    /// Of each list: what it is, and the 50th and the 99th percentile of a page.
    pub(crate) pages: Vec<(&'static str, [Duration; 2])>,
    /// The median of a small upload alone, and beside the lists.
    pub(crate) small: [Duration; 2],
    /// What the indexes of one listing take in Redis for each record, in bytes.
    pub(crate) memory: Option<u64>,
}

pub(crate) async fn measure(
    store: &Store,
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Vec<Finding>> {
    let records = if quick { FEW } else { RECORDS };
    let gateway = Gateway::start(store, redis_url)?;
    let client = UploadServiceClient::connect(gateway.address.clone()).await?;
    let sent = through::send(client, payload.clone(), SMALL_SIZE, SMALL_SIZE, None).await?;
    let config = RedisConfig {
        url: redis_url.parse()?,
        ..RedisConfig::default()
    };
    let redis: Arc<dyn StateStore> = Arc::new(Redis::connect(&config).await?);
    let template = redis.get(&sent.upload_id.parse()?).await?;
    let template = template.ok_or("the upload has no record")?;
    fill(&redis, &template, records).await?;
    let over_redis = Finding {
        memory: Some(memory(redis_url).await? / records),
        ..of(&gateway, "Redis", records, payload).await?
    };
    drop(gateway);

    let data = TempDir::with_prefix("upload-gateway-bench.")?;
    let redb = Redb::open(data.path().join("state.redb")).await?;
    let redb: Arc<dyn StateStore> = Arc::new(redb);
    fill(&redb, &template, records).await?;
    drop(redb);
    let gateway = Gateway::embedded(store, data.path())?;
    Ok(vec![
        over_redis,
        of(&gateway, "redb", records, payload).await?,
    ])
}

/// Writes COMPLETE records like `template`, in one storage and with two tags: one of all, and one of every second record.
async fn fill(state: &Arc<dyn StateStore>, template: &Upload, records: u64) -> Result<()> {
    let writes = (0..records).map(|number| {
        let mut upload = Upload {
            id: UploadId::generate(None),
            created_at: Timestamp(template.created_at.0.saturating_sub(number)),
            ..template.clone()
        };
        upload.file.file_name = format!("Report {number:07}.pdf");
        upload.file.tags = vec![
            "all".into(),
            ["even", "odd"][usize::from(number % 2 == 1)].into(),
        ];
        let state = Arc::clone(state);
        async move { state.create(&upload, u64::MAX).await.map(drop) }
    });
    let writes = stream::iter(writes).buffer_unordered(WRITES);
    writes.try_for_each(|()| async { Ok(()) }).await?;
    Ok(())
}

async fn of(
    gateway: &Gateway,
    store: &'static str,
    records: u64,
    payload: &Payload,
) -> Result<Finding> {
    let mut client = UploadServiceClient::connect(gateway.address.clone()).await?;
    let mut pages = Vec::new();
    for (name, request) in lists() {
        pages.push((name, page_times(&mut client, request).await?));
    }
    let (mut alone, mut beside) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        alone = alone.min(small_uploads(&client, payload).await?);
        let others = list_at_once(gateway).await?;
        beside = beside.min(small_uploads(&client, payload).await?);
        drop(others);
    }
    Ok(Finding {
        store,
        records,
        pages,
        small: [alone, beside],
        memory: None,
    })
}

/// The lists, the worst ones last.
fn lists() -> Vec<(&'static str, ListUploadsRequest)> {
    let all = ListUploadsRequest {
        page_size: 100,
        ..ListUploadsRequest::default()
    };
    let tags = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>();
    vec![
        ("all", all.clone()),
        (
            "a tag that half of them have",
            ListUploadsRequest {
                tags: tags(&["even"]),
                ..all.clone()
            },
        ),
        (
            "a beginning of names",
            ListUploadsRequest {
                name_prefix: "report 0".into(),
                ..all.clone()
            },
        ),
        (
            "a text that all names contain",
            ListUploadsRequest {
                name_contains: "PORT".into(),
                ..all.clone()
            },
        ),
        (
            "a phase that none is in",
            ListUploadsRequest {
                phase: Phase::Aborted.into(),
                ..all.clone()
            },
        ),
        (
            "two tags that no upload has together",
            ListUploadsRequest {
                tags: tags(&["even", "odd"]),
                ..all.clone()
            },
        ),
        (
            "a beginning of all names, in another storage",
            ListUploadsRequest {
                name_prefix: "report".into(),
                storage_id: "other".into(),
                ..all.clone()
            },
        ),
        ("a text that no name contains", worst()),
    ]
}

/// A list that looks at as many uploads as it may, and finds none.
fn worst() -> ListUploadsRequest {
    ListUploadsRequest {
        page_size: 100,
        name_contains: "nothing".into(),
        ..ListUploadsRequest::default()
    }
}

/// The 50th and the 99th percentile of the first pages; after the last one they are the first ones again.
async fn page_times(
    client: &mut UploadServiceClient<Channel>,
    request: ListUploadsRequest,
) -> Result<[Duration; 2]> {
    let (mut times, mut page_token) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let request = ListUploadsRequest {
            page_token,
            ..request.clone()
        };
        let begin = Instant::now();
        let page = client.list_uploads(request).await?.into_inner();
        times.push(begin.elapsed());
        page_token = page.next_page_token;
    }
    Ok([percentile(&mut times, 50), percentile(&mut times, 99)])
}

/// Lists that run again and again, as many as the gateway lets, until this is dropped.
async fn list_at_once(gateway: &Gateway) -> Result<JoinSet<()>> {
    let connect = |_| UploadServiceClient::connect(gateway.address.clone());
    let clients = try_join_all((0..CONNECTIONS).map(connect)).await?;
    let mut lists = JoinSet::new();
    for number in 0..LISTS {
        let mut client = clients[number % CONNECTIONS].clone();
        lists.spawn(async move {
            loop {
                // One too many is OVERLOADED.
                let _ = client.list_uploads(worst()).await;
            }
        });
    }
    Ok(lists)
}

/// The memory of all indexes, in bytes.
async fn memory(redis_url: &str) -> Result<u64> {
    let client = redis::Client::open(redis_url)?;
    // The server looks at millions of keys and members.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(MEMORY_TIMEOUT));
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connection.await?;
    let mut keys = redis::cmd("KEYS");
    let keys = keys.arg("*:index:*");
    let keys: Vec<String> = keys.query_async(&mut connection).await?;
    let mut sum = 0;
    for key in keys {
        let mut usage = redis::cmd("MEMORY");
        // All members would take the server too long.
        usage.arg("USAGE").arg(key).arg("SAMPLES").arg(10_000);
        sum += usage.query_async::<u64>(&mut connection).await?;
    }
    Ok(sum)
}
