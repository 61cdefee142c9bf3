//! A caller that gives up, or whose time is over: what was received whole is committed all the same.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use upload_gateway::config::{Config, S3Profile, StoreConfig};

use super::{
    PART,
    common::{self, Forwarder, TestGateway, bytes, chunk, open, reason},
};

/// A gateway before a store whose requests can be held back.
struct Held {
    gateway: TestGateway,
    store: Forwarder,
    _s3: common::S3Backend,
    _directory: tempfile::TempDir,
}

impl Held {
    async fn start() -> Option<Self> {
        let s3 = common::s3().await?;
        let store = Forwarder::start([s3.endpoint.replace("http://", "").parse().unwrap()]).await;
        let directory = tempfile::TempDir::new().unwrap();
        let mut storage = s3.storage(S3Profile::Compatible);
        if let StoreConfig::S3(s3) = &mut storage.store {
            s3.endpoint = Some(format!("http://{}", store.address).parse().unwrap());
        }
        let config = Config {
            data_dir: directory.path().join("data"),
            storage: vec![storage],
            ..Config::default()
        };
        Some(Self {
            gateway: TestGateway::over(config).await,
            store,
            _s3: s3,
            _directory: directory,
        })
    }

    /// Waits until so much of the upload is committed.
    async fn has_committed(&self, upload_id: &str, size: usize) {
        let size = i64::try_from(size).unwrap();
        common::until(
            "a part that was received completely is committed",
            async || self.gateway.get(upload_id).await.unwrap().committed_size == size,
        )
        .await;
    }
}

#[tokio::test]
async fn after_its_deadline_a_stream_ends_and_its_whole_parts_are_committed() {
    /// Enough to send a part on a busy machine.
    const CALL_TIMEOUT: Duration = Duration::from_secs(3);
    let Some(held) = Held::start().await else {
        return;
    };
    let mut client = held.gateway.client().await;
    let (messages, queue) = mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(queue));
    request.set_timeout(CALL_TIMEOUT);
    let deadline = Instant::now() + CALL_TIMEOUT;
    let mut progress = client
        .upload_with_progress(request)
        .await
        .unwrap()
        .into_inner();
    messages.send(open("a.bin", None)).await.unwrap();
    let upload_id = progress.message().await.unwrap().unwrap().upload_id;
    // The session is begun, and then the store does not answer for longer than the caller waits.
    held.store.hold();
    for (index, piece) in bytes(PART + 10).chunks(1 << 20).enumerate() {
        messages.send(chunk(index << 20, piece)).await.unwrap();
    }
    let ended = async {
        loop {
            if let Err(status) = progress.message().await {
                return status;
            }
        }
    };
    let release = async {
        sleep_until(deadline).await;
        held.store.release();
    };
    let (status, ()) = tokio::join!(ended, release);
    assert_eq!(
        reason(&status),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".into())
    );
    held.has_committed(&upload_id, PART).await;
}

#[tokio::test]
async fn the_whole_parts_of_a_caller_that_goes_away_are_committed() {
    let Some(held) = Held::start().await else {
        return;
    };
    let mut stream = held.gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    held.store.hold();
    let before = held.store.received();
    stream.send_in_chunks(0, &bytes(PART + 10), 1 << 20).await;
    // The part is on its way, or its session is.
    held.store.has_received(before + 1).await;
    drop(stream);
    held.store.release();
    held.has_committed(&upload_id, PART).await;
}

/// As a whole call with a deadline ends, by tonic itself.
#[tokio::test]
async fn a_call_without_progress_keeps_its_deadline_too() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let (messages, queue) = mpsc::channel(4);
    messages.send(open("a.bin", None)).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(queue));
    request.set_timeout(Duration::from_secs(1));
    let status: Status = client.upload(request).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
}
