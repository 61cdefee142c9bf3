//! Outages of Redis or of the store during a stream: the stream waits for the store retry time-out, then it ends with
//! UNAVAILABLE, and the upload resumes by its id.

use std::time::Duration;

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use upload_gateway::config::{Config, S3Profile};
use upload_gateway_client::proto::v1::Phase;

use crate::common::{
    self, Conversation, Forwarder, Server, TestGateway, bytes, finish, open, open_known, reason,
};

const PART: usize = 5 * 1024 * 1024;

/// The number of failed connections before the server is started again. Health checks and the subscription to takeovers
/// alone would take much longer to make as many, so the stream retries.
const ATTEMPTS: u64 = 20;

/// The server that is down.
#[derive(Clone, Copy, PartialEq)]
enum Down {
    Redis,
    Store,
}

/// Redis and an S3 server for this test alone, which can be stopped and started again.
struct Backends {
    redis: Server,
    store: Server,
    /// Forwarders between the gateway and Redis, and between the gateway and the store.
    ways: [Forwarder; 2],
    config: Config,
}

impl Backends {
    async fn start(retry_seconds: u64) -> Option<Self> {
        let (redis, _) = common::private_redis(&["--appendonly", "yes"])?;
        let (store, mut s3) = common::private_s3().await?;
        let ways = [
            Forwarder::start([redis.address()]).await,
            Forwarder::start([store.address()]).await,
        ];
        s3.endpoint = format!("http://{}", ways[1].address);
        let mut config = Config {
            redis_url: Some(format!("redis://{}", ways[0].address).parse().unwrap()),
            storage: vec![s3.storage(S3Profile::Compatible)],
            ..Config::default()
        };
        config.limits.store_retry_timeout_seconds = retry_seconds;
        Some(Self {
            redis,
            store,
            ways,
            config,
        })
    }

    fn way(&self, down: Down) -> &Forwarder {
        match down {
            Down::Redis => &self.ways[0],
            Down::Store => &self.ways[1],
        }
    }

    fn server(&mut self, down: Down) -> &mut Server {
        match down {
            Down::Redis => &mut self.redis,
            Down::Store => &mut self.store,
        }
    }
}

/// A stream with one committed part.
async fn begin(gateway: &TestGateway, data: &[u8]) -> (Conversation, String) {
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", Some(data.len()))).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &data[..PART], 1 << 20).await;
    stream.committed(PART).await;
    (stream, upload_id)
}

async fn a_short_outage_is_waited_out(down: Down) {
    let Some(mut backends) = Backends::start(30).await else {
        return;
    };
    let gateway = TestGateway::over(backends.config.clone()).await;
    let data = bytes(3 * PART + 100);
    let (stream, _) = begin(&gateway, &data).await;
    backends.server(down).kill();
    let sending = async {
        stream.send_in_chunks(PART, &data[PART..], 1 << 20).await;
        stream.send(finish()).await;
    };
    let outage = async {
        let refused = backends.way(down).refused();
        backends.way(down).has_refused(refused + ATTEMPTS).await;
        backends.server(down).restart();
    };
    tokio::join!(sending, outage);
    let upload = stream.end().await.unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
    assert_eq!(
        upload.object.unwrap().size,
        i64::try_from(data.len()).unwrap()
    );
}

async fn a_long_outage_ends_the_stream_and_the_upload_resumes(down: Down, expected: &str) {
    let Some(mut backends) = Backends::start(2).await else {
        return;
    };
    let gateway = TestGateway::over(backends.config.clone()).await;
    let data = bytes(3 * PART + 100);
    let (mut stream, upload_id) = begin(&gateway, &data).await;
    backends.server(down).kill();
    stream
        .send_in_chunks(PART, &data[PART..2 * PART], 1 << 20)
        .await;
    let status = loop {
        if let Err(status) = stream.next().await {
            break status;
        }
    };
    assert_eq!(reason(&status), (Code::Unavailable, expected.into()));
    assert!(
        status
            .get_details_retry_info()
            .unwrap()
            .retry_delay
            .is_some()
    );
    backends.server(down).restart();

    let mut stream = gateway.converse().await;
    stream.send(open_known(&upload_id)).await;
    let committed = usize::try_from(stream.next().await.unwrap().committed_size).unwrap();
    assert_eq!(
        committed, PART,
        "committed bytes are kept, others are not reported"
    );
    stream
        .send_in_chunks(committed, &data[committed..], 1 << 20)
        .await;
    stream.send(finish()).await;
    assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
}

async fn an_outage_is_reported_and_takes_no_replica_out(down: Down) {
    let Some(mut backends) = Backends::start(30).await else {
        return;
    };
    let gateway = TestGateway::over(backends.config.clone()).await;
    let (service, pointer) = match down {
        Down::Redis => ("state", "/state"),
        Down::Store => ("storage/media", "/storages/0"),
    };
    let channel = tonic::transport::Endpoint::new(gateway.grpc.clone())
        .unwrap()
        .connect_lazy();
    let mut health = HealthClient::new(channel);
    let request = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    let watched = health.watch(request(service)).await;
    let mut watched = watched.unwrap().into_inner();
    let mut status = async || watched.message().await.unwrap().unwrap().status();
    let ready = async || {
        let answer = reqwest::get(format!("{}/readyz", gateway.http)).await;
        let answer = answer.unwrap();
        let code = answer.status().as_u16();
        let body = answer.text().await.unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let store = body.pointer(pointer).unwrap().clone();
        (code, store["status"].clone(), store["cause"].clone())
    };
    let available = (200, "available".into(), serde_json::Value::Null);
    assert_eq!(status().await.as_str_name(), "SERVING");
    assert_eq!(ready().await, available);
    backends.server(down).kill();
    assert_eq!(status().await.as_str_name(), "NOT_SERVING");
    let unavailable = (200, "unavailable".into(), "unavailable".into());
    assert_eq!(ready().await, unavailable);
    let whole = health.check(request("")).await.unwrap().into_inner();
    assert_eq!(whole.status().as_str_name(), "SERVING");
    backends.server(down).restart();
    assert_eq!(status().await.as_str_name(), "SERVING");
    assert_eq!(ready().await, available);
}

#[tokio::test]
async fn a_gateway_that_starts_without_redis_serves_when_redis_is_back() {
    let Some(mut backends) = Backends::start(1).await else {
        return;
    };
    backends.server(Down::Redis).kill();
    let gateway = TestGateway::over(backends.config.clone()).await;
    let page = async |page: &str| {
        let answer = reqwest::get(format!("{}/{page}", gateway.http)).await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(page("healthz").await.0, 200);
    let (code, body) = page("readyz").await;
    assert_eq!(code, 503);
    assert!(
        body.contains("the state store was not reached yet"),
        "{body}"
    );
    let data = bytes(100);
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", Some(data.len()))).await;
    let refused = stream.next().await.unwrap_err();
    let unavailable = (Code::Unavailable, "STATE_UNAVAILABLE".into());
    assert_eq!(reason(&refused), unavailable);
    backends.server(Down::Redis).restart();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while page("readyz").await.0 != 200 {
        assert!(tokio::time::Instant::now() < deadline, "not ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", Some(data.len()))).await;
    stream.next().await.unwrap();
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.send(finish()).await;
    assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
}

#[tokio::test]
async fn a_short_outage_of_redis_is_waited_out() {
    a_short_outage_is_waited_out(Down::Redis).await;
}

#[tokio::test]
async fn a_short_outage_of_the_store_is_waited_out() {
    a_short_outage_is_waited_out(Down::Store).await;
}

#[tokio::test]
async fn a_long_outage_of_redis_ends_the_stream_and_the_upload_resumes() {
    Box::pin(a_long_outage_ends_the_stream_and_the_upload_resumes(
        Down::Redis,
        "STATE_UNAVAILABLE",
    ))
    .await;
}

#[tokio::test]
async fn a_long_outage_of_the_store_ends_the_stream_and_the_upload_resumes() {
    Box::pin(a_long_outage_ends_the_stream_and_the_upload_resumes(
        Down::Store,
        "STORE_UNAVAILABLE",
    ))
    .await;
}

#[tokio::test]
async fn an_outage_of_redis_is_reported_and_takes_no_replica_out() {
    an_outage_is_reported_and_takes_no_replica_out(Down::Redis).await;
}

#[tokio::test]
async fn an_outage_of_the_store_is_reported_and_takes_no_replica_out() {
    an_outage_is_reported_and_takes_no_replica_out(Down::Store).await;
}
