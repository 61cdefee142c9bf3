//! Commits whose answer does not match their outcome, and commits that the gateway stops retrying.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use upload_gateway::config::StoreConfig;
use upload_gateway_client::proto::v1::{Phase, Upload};

use super::{
    common::{TestGateway, bytes, finish, reason, until},
    for_each_store,
    proxy::{Fault, Proxy},
    stores::{self, Stores, assert_whole, begin, resume},
};

for_each_store!(
    a_commit_that_was_not_sent_stops_without_its_lease,
    a_commit_that_stopped_but_succeeded_is_found_at_once,
    a_commit_may_take_longer_than_its_lease,
    a_commit_that_another_caller_finds_is_complete_for_both,
    a_drain_does_not_wait_for_a_slow_commit,
);

const INTERNAL_ERROR: &str =
    "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
const NO_SUCH_UPLOAD: &str = "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>";
const INVALID_PART: &str = "<Error><Code>InvalidPart</Code><Message>which?</Message></Error>";
const ENTITY_TOO_SMALL: &str =
    "<Error><Code>EntityTooSmall</Code><Message>is it?</Message></Error>";
const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>slow down</Message></Error>";

/// Half of a commit's default lease: what is done by then has not waited for the lease to expire.
const AT_ONCE: Duration = Duration::from_secs(45);

/// The default drain time.
const DRAIN: Duration = Duration::from_secs(20);

/// S3 behind a proxy, and a gateway that uses the proxy.
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
        stores.config.limits.store_settle_seconds = 1;
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

    async fn assert_completes(&self) {
        let (_, upload) = self.send().await;
        assert!(self.proxy.left().is_empty(), "a fault did not occur");
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

/// Sends a file in one stream; returns the upload's id and the stream's result.
async fn send(gateway: &TestGateway, fault: &str, data: &[u8]) -> (String, Result<Upload, Status>) {
    let (stream, opened) = begin(&gateway.grpc, fault, data).await.unwrap();
    stream.send_in_chunks(0, data, 1 << 20).await;
    stream.send(finish()).await;
    (opened.upload_id, stream.end().await)
}

#[tokio::test]
async fn an_error_in_an_answer_of_200_is_an_error() {
    let faults = vec![to_commit(200, INTERNAL_ERROR, false)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.assert_completes().await;
    }
}

#[tokio::test]
async fn an_error_in_an_answer_of_200_is_ignored_if_the_object_exists() {
    let faults = vec![to_commit(200, INTERNAL_ERROR, true)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.assert_completes().await;
    }
}

#[tokio::test]
async fn a_lost_answer_and_then_no_such_upload_is_a_success() {
    // The answers of AWS to a repeated CompleteMultipartUpload and to the ListParts after it.
    let list = Fault {
        method: "GET",
        ..to_commit(404, NO_SUCH_UPLOAD, false)
    };
    let lost = Fault {
        then: vec![list],
        ..to_commit(500, INTERNAL_ERROR, true)
    };
    if let Some(proxied) = Proxied::by(vec![lost]).await {
        proxied.assert_completes().await;
    }
    let faults = vec![to_commit(404, NO_SUCH_UPLOAD, true)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.assert_completes().await;
    }
}

#[tokio::test]
async fn a_store_that_asks_to_slow_down_is_retried() {
    let faults = vec![to_commit(503, SLOW_DOWN, false)];
    if let Some(proxied) = Proxied::by(faults).await {
        proxied.assert_completes().await;
    }
}

#[tokio::test]
async fn one_false_answer_to_a_commit_is_contradicted_by_the_list_of_parts() {
    for body in [NO_SUCH_UPLOAD, INVALID_PART, ENTITY_TOO_SMALL] {
        if let Some(proxied) = Proxied::by(vec![to_commit(400, body, false)]).await {
            proxied.assert_completes().await;
        }
    }
}

#[tokio::test]
async fn a_session_that_the_store_denies_twice_is_lost() {
    let Some(proxied) = Proxied::by(denied_session()).await else {
        return;
    };
    let (id, refused) = proxied.send().await;
    let refused = refused.unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::Unavailable, "STORE_UNAVAILABLE".into())
    );
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    let left = proxied.gateway.get(&id).await.unwrap();
    assert_eq!(left.phase(), Phase::Committing);
    // The second observation counts after the settle time.
    let mut lost = None;
    let is_lost = async || {
        let resumed = resume(&proxied.gateway.grpc, "", &id, &proxied.data).await;
        let refused = reason(&resumed.unwrap_err());
        lost = (refused.0 != Code::Unavailable).then_some(refused);
        lost.is_some()
    };
    until("the session is lost", is_lost).await;
    let lost = lost.unwrap();
    assert_eq!(lost, (Code::FailedPrecondition, "SESSION_LOST".into()));
    let left = proxied.gateway.get(&id).await.unwrap();
    assert_eq!(left.phase(), Phase::Aborted);
    assert_eq!(
        proxied.stores.open_sessions().await.len(),
        1,
        "the sweeper ends it"
    );
}

#[tokio::test]
async fn no_such_upload_while_an_earlier_commit_may_be_running_is_unavailable() {
    let unanswered = Fault {
        then: denied_session(),
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

/// The store denies the session to ListParts and CompleteMultipartUpload.
fn denied_session() -> Vec<Fault> {
    let commit = Fault {
        times: usize::MAX,
        ..to_commit(404, NO_SUCH_UPLOAD, false)
    };
    let list = Fault {
        method: "GET",
        ..commit.clone()
    };
    vec![commit, list]
}

async fn a_commit_that_was_not_sent_stops_without_its_lease(stores: Stores) {
    let fault = "store.list_parts:times=1000:fail-before";
    Box::pin(stopped_and_resumed(fault, stores)).await;
}

async fn a_commit_that_stopped_but_succeeded_is_found_at_once(stores: Stores) {
    let fault = "store.commit:times=1000:fail-after, store.head:times=1000:fail-before";
    Box::pin(stopped_and_resumed(fault, stores)).await;
}

/// A commit that fails for longer than the gateway retries, and is resumed, with the default lease.
async fn stopped_and_resumed(fault: &str, mut stores: Stores) {
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

/// The gateway renews the lease while the store works.
async fn a_commit_may_take_longer_than_its_lease(mut stores: Stores) {
    stores.config.limits.commit_lease_seconds = 2;
    stores.config.limits.store_retry_timeout_seconds = 1;
    let gateway = TestGateway::over(stores.config.clone()).await;
    let data = bytes(stores.part + 1000);
    let begun = Instant::now();
    let (_, upload) = send(&gateway, "store.commit:delay=5s", &data).await;
    assert!(begun.elapsed() > Duration::from_secs(4));
    assert_whole(&stores, &gateway, &upload.unwrap(), &data).await;
}

/// The store has made the object, and does not answer the committer.
async fn a_commit_that_another_caller_finds_is_complete_for_both(mut stores: Stores) {
    stores.config.limits.commit_lease_seconds = 2;
    stores.config.limits.store_retry_timeout_seconds = 1;
    let gateway = TestGateway::over(stores.config.clone()).await;
    let data = bytes(stores.part + 1000);
    let (stream, opened) = begin(&gateway.grpc, "store.head:delay=600s", &data)
        .await
        .unwrap();
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.send(finish()).await;
    until("the commit runs", async || {
        gateway.get(&opened.upload_id).await.unwrap().phase() == Phase::Committing
    })
    .await;
    let found = resume(&gateway.grpc, "", &opened.upload_id, &data).await;
    assert_whole(&stores, &gateway, &found.unwrap(), &data).await;
    let committed = timeout(AT_ONCE, stream.end()).await.unwrap();
    assert_whole(&stores, &gateway, &committed.unwrap(), &data).await;
}

async fn a_drain_does_not_wait_for_a_slow_commit(stores: Stores) {
    let gateway = TestGateway::over(stores.config.clone()).await;
    let data = bytes(stores.part + 1000);
    let (stream, opened) = begin(&gateway.grpc, "store.commit:delay=600s", &data)
        .await
        .unwrap();
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.send(finish()).await;
    until("the commit runs", async || {
        gateway.get(&opened.upload_id).await.unwrap().phase() == Phase::Committing
    })
    .await;
    let stopping = tokio::spawn(gateway.stop());
    let status = timeout(DRAIN / 2, stream.end()).await.unwrap().unwrap_err();
    assert_eq!(reason(&status), (Code::Unavailable, "DRAINING".into()));
    timeout(DRAIN / 2, stopping).await.unwrap().unwrap();

    let next = TestGateway::over(stores.config.clone()).await;
    let upload = resume(&next.grpc, "", &opened.upload_id, &data)
        .await
        .unwrap();
    assert_whole(&stores, &next, &upload, &data).await;
}
