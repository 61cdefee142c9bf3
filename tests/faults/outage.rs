//! Redis or the store goes away in mid-stream: for a while the stream just waits, after that it ends with UNAVAILABLE and
//! the upload resumes by id.

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use upload_gateway::config::{Config, S3Profile};
use upload_gateway_client::proto::v1::Phase;

use crate::common::{
    self, Conversation, Forwarder, Server, TestGateway, bytes, finish, open, open_known, reason,
};

const PART: usize = 5 * 1024 * 1024;

/// How often the gateway tries in vain before the server is started again. Health checks and the subscription to takeovers
/// alone would take much longer for as many.
const ATTEMPTS: u64 = 20;

/// Which server goes away.
#[derive(Clone, Copy, PartialEq)]
enum Away {
    Redis,
    Store,
}

/// Redis and an S3 of this test's own, to be stopped and started again.
struct Backends {
    redis: Server,
    store: Server,
    /// Between the gateway and Redis, and the gateway and the store.
    ways: [Forwarder; 2],
    config: Config,
}

impl Backends {
    async fn start(patience_seconds: u64) -> Option<Self> {
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
        config.limits.store_retry_timeout_seconds = patience_seconds;
        Some(Self {
            redis,
            store,
            ways,
            config,
        })
    }

    fn way(&self, away: Away) -> &Forwarder {
        match away {
            Away::Redis => &self.ways[0],
            Away::Store => &self.ways[1],
        }
    }

    fn server(&mut self, away: Away) -> &mut Server {
        match away {
            Away::Redis => &mut self.redis,
            Away::Store => &mut self.store,
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

async fn a_short_outage_is_waited_out(away: Away) {
    let Some(mut backends) = Backends::start(30).await else {
        return;
    };
    let gateway = TestGateway::over(backends.config.clone()).await;
    let data = bytes(3 * PART + 100);
    let (stream, _) = begin(&gateway, &data).await;
    backends.server(away).kill();
    let sending = async {
        stream.send_in_chunks(PART, &data[PART..], 1 << 20).await;
        stream.send(finish()).await;
    };
    let outage = async {
        let refused = backends.way(away).refused();
        backends.way(away).has_refused(refused + ATTEMPTS).await;
        backends.server(away).restart();
    };
    tokio::join!(sending, outage);
    let upload = stream.end().await.unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
    assert_eq!(
        upload.object.unwrap().size,
        i64::try_from(data.len()).unwrap()
    );
}

async fn a_long_outage_ends_the_stream_and_the_upload_resumes(away: Away, expected: &str) {
    let Some(mut backends) = Backends::start(2).await else {
        return;
    };
    let gateway = TestGateway::over(backends.config.clone()).await;
    let data = bytes(3 * PART + 100);
    let (mut stream, upload_id) = begin(&gateway, &data).await;
    backends.server(away).kill();
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
    backends.server(away).restart();

    let mut stream = gateway.converse().await;
    stream.send(open_known(&upload_id)).await;
    let committed = usize::try_from(stream.next().await.unwrap().committed_size).unwrap();
    assert_eq!(
        committed, PART,
        "what was committed is kept, what was not is not told"
    );
    stream
        .send_in_chunks(committed, &data[committed..], 1 << 20)
        .await;
    stream.send(finish()).await;
    assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
}

async fn health_follows(away: Away) {
    let Some(mut backends) = Backends::start(30).await else {
        return;
    };
    let gateway = TestGateway::over(backends.config.clone()).await;
    let channel = tonic::transport::Endpoint::new(gateway.grpc.clone())
        .unwrap()
        .connect_lazy();
    let mut health = HealthClient::new(channel);
    let mut watched = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut told = async || watched.message().await.unwrap().unwrap().status();
    let ready = async || {
        reqwest::get(format!("{}/readyz", gateway.http))
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(told().await.as_str_name(), "SERVING");
    assert_eq!(ready().await, 200);
    backends.server(away).kill();
    assert_eq!(told().await.as_str_name(), "NOT_SERVING");
    assert_eq!(ready().await, 503);
    assert_eq!(
        reqwest::get(format!("{}/healthz", gateway.http))
            .await
            .unwrap()
            .status()
            .as_u16(),
        200
    );
    backends.server(away).restart();
    assert_eq!(told().await.as_str_name(), "SERVING");
    assert_eq!(ready().await, 200);
}

#[tokio::test]
async fn a_short_outage_of_redis_is_waited_out() {
    a_short_outage_is_waited_out(Away::Redis).await;
}

#[tokio::test]
async fn a_short_outage_of_the_store_is_waited_out() {
    a_short_outage_is_waited_out(Away::Store).await;
}

#[tokio::test]
async fn a_long_outage_of_redis_ends_the_stream_and_the_upload_resumes() {
    Box::pin(a_long_outage_ends_the_stream_and_the_upload_resumes(
        Away::Redis,
        "STATE_UNAVAILABLE",
    ))
    .await;
}

#[tokio::test]
async fn a_long_outage_of_the_store_ends_the_stream_and_the_upload_resumes() {
    Box::pin(a_long_outage_ends_the_stream_and_the_upload_resumes(
        Away::Store,
        "STORE_UNAVAILABLE",
    ))
    .await;
}

#[tokio::test]
async fn health_follows_redis() {
    health_follows(Away::Redis).await;
}

#[tokio::test]
async fn health_follows_the_store() {
    health_follows(Away::Store).await;
}
