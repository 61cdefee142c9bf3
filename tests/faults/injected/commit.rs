//! Commits whose answer says something else than what became of them, and commits that are given up.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use upload_gateway::config::StoreConfig;
use upload_gateway_client::proto::v1::{Phase, Upload};

use super::{
    common::{TestGateway, bytes, finish, reason},
    for_each_store,
    proxy::{Fault, Proxy},
    stores::{self, Stores, assert_whole, begin, resume},
};

for_each_store!(
    a_commit_that_was_not_sent_is_given_up_without_its_lease,
    a_commit_that_is_given_up_and_succeeded_is_found_at_once,
    a_commit_that_hangs_is_given_up_before_its_lease_ends,
);

const INTERNAL_ERROR: &str =
    "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
const NO_SUCH_UPLOAD: &str = "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>";
const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>slow down</Message></Error>";

/// Half of a commit's usual lease: who is done by then has not waited for its end.
const AT_ONCE: Duration = Duration::from_secs(45);

/// S3 behind a proxy, and a gateway that knows the proxy only.
struct Proxied {
    stores: Stores,
    proxy: Proxy,
    gateway: TestGateway,
    data: Vec<u8>,
}

impl Proxied {
    async fn by(faults: Vec<Fault>) -> Option<Self> {
        let mut stores = stores::s3().await?;
        stores.config.limits.store_retry_timeout_seconds = 2;
        stores.config.limits.commit_lease_seconds = 3;
        let proxy = Proxy::start(&stores.s3.as_ref().unwrap().endpoint, faults).await;
        let mut config = stores.config.clone();
        let StoreConfig::S3(s3) = &mut config.storage[0].store else {
            panic!("the storage is S3");
        };
        s3.endpoint = Some(proxy.endpoint.parse().unwrap());
        Some(Self {
            gateway: TestGateway::over(config).await,
            data: bytes(stores.part + 1000),
            stores,
            proxy,
        })
    }

    async fn send(&self) -> (String, Result<Upload, Status>) {
        send(&self.gateway, "", &self.data).await
    }

    async fn ends_whole(&self) {
        let (_, upload) = self.send().await;
        assert!(self.proxy.left().is_empty(), "a fault was not met");
        assert_whole(&self.stores, &self.gateway, &upload.unwrap(), &self.data).await;
    }
}

/// An answer to CompleteMultipartUpload.
fn to_commit(status: u16, body: &'static str, reaches_store: bool) -> Fault {
    Fault {
        method: "POST",
        query: "uploadId=",
        status,
        body,
        times: 1,
        reaches_store,
        then: Vec::new(),
    }
}

/// Sends a file in one stream; its id, and its end.
async fn send(gateway: &TestGateway, fault: &str, data: &[u8]) -> (String, Result<Upload, Status>) {
    let (stream, opened) = begin(&gateway.grpc, fault, data).await.unwrap();
    stream.send_in_chunks(0, data, 1 << 20).await;
    stream.send(finish()).await;
    (opened.upload_id, stream.end().await)
}

#[tokio::test]
async fn an_error_that_comes_with_200_is_an_error() {
    let faults = vec![to_commit(200, INTERNAL_ERROR, false)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.ends_whole().await;
    }
}

#[tokio::test]
async fn an_error_that_comes_with_200_although_the_object_is_there_is_none() {
    let faults = vec![to_commit(200, INTERNAL_ERROR, true)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.ends_whole().await;
    }
}

#[tokio::test]
async fn a_lost_answer_and_then_no_such_upload_is_a_success() {
    // As AWS answers a repeated Complete, and as it answers who asks for the parts then.
    let list = Fault {
        method: "GET",
        ..to_commit(404, NO_SUCH_UPLOAD, false)
    };
    let lost = Fault {
        then: vec![list],
        ..to_commit(500, INTERNAL_ERROR, true)
    };
    if let Some(proxied) = Proxied::by(vec![lost]).await {
        proxied.ends_whole().await;
    }
    let faults = vec![to_commit(404, NO_SUCH_UPLOAD, true)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.ends_whole().await;
    }
}

#[tokio::test]
async fn a_store_that_asks_to_slow_down_is_asked_again() {
    let faults = vec![to_commit(503, SLOW_DOWN, false)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.ends_whole().await;
    }
}

#[tokio::test]
async fn no_such_upload_without_an_object_is_the_end() {
    let faults = vec![to_commit(404, NO_SUCH_UPLOAD, false)];
    let Some(proxied) = Proxied::by(faults).await else {
        return;
    };
    let (id, refused) = proxied.send().await;
    let refused = reason(&refused.unwrap_err());
    assert_eq!(refused, (Code::FailedPrecondition, "SESSION_LOST".into()));
    let left = proxied.gateway.get(&id).await.unwrap();
    assert_eq!(left.phase(), Phase::Aborted);
    assert_eq!(proxied.stores.open_sessions().await, []);
}

#[tokio::test]
async fn no_such_upload_while_an_earlier_commit_may_be_at_work_is_not_the_end() {
    let gone = Fault {
        method: "GET",
        times: usize::MAX,
        ..to_commit(404, NO_SUCH_UPLOAD, false)
    };
    let unanswered = Fault {
        then: vec![gone],
        ..to_commit(500, INTERNAL_ERROR, false)
    };
    let Some(proxied) = Proxied::by(vec![unanswered]).await else {
        return;
    };
    let (id, refused) = proxied.send().await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    let straight = proxied.stores.gateway().await;
    let left = straight.get(&id).await.unwrap();
    assert_eq!(left.phase(), Phase::Committing);
    let upload = resume(&straight.grpc, "", &id, &proxied.data).await;
    assert_whole(&proxied.stores, &straight, &upload.unwrap(), &proxied.data).await;
}

async fn a_commit_that_was_not_sent_is_given_up_without_its_lease(stores: Stores) {
    let fault = "store.list_parts:times=1000:fail-before";
    Box::pin(given_up_and_resumed(fault, stores)).await;
}

async fn a_commit_that_is_given_up_and_succeeded_is_found_at_once(stores: Stores) {
    let fault = "store.commit:times=1000:fail-after, store.head:times=1000:fail-before";
    Box::pin(given_up_and_resumed(fault, stores)).await;
}

/// A commit that fails for longer than the gateway holds on, and is met again, with the usual lease.
async fn given_up_and_resumed(fault: &str, mut stores: Stores) {
    stores.config.limits.store_retry_timeout_seconds = 1;
    let gateway = stores.gateway().await;
    let data = bytes(stores.part + 1000);
    let (id, refused) = send(&gateway, fault, &data).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    let left = gateway.get(&id).await.unwrap();
    assert_eq!(left.phase(), Phase::Committing);
    let resumed = timeout(AT_ONCE, resume(&gateway.grpc, "", &id, &data)).await;
    let upload = resumed.expect("it waits for the lease").unwrap();
    assert_whole(&stores, &gateway, &upload, &data).await;
}

/// The clock of another replica may be ahead: by then the first has stopped, so that they are never two.
async fn a_commit_that_hangs_is_given_up_before_its_lease_ends(mut stores: Stores) {
    let lease = Duration::from_secs(15);
    stores.config.limits.commit_lease_seconds = lease.as_secs();
    stores.config.limits.store_retry_timeout_seconds = 12;
    let gateway = TestGateway::over(stores.config.clone()).await;
    let data = bytes(stores.part + 1000);
    let begun = Instant::now();
    let (upload_id, ended) = send(&gateway, "store.commit:delay=60s", &data).await;
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    // A third of it is for the clocks.
    assert!(begun.elapsed() < lease, "{:?}", begun.elapsed());
    let upload = gateway.get(&upload_id).await.unwrap();
    assert_eq!(upload.phase(), Phase::Committing);
}
