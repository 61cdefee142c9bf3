//! A store that asks to slow down: retries come after the delay that it asks for, and rarely; meanwhile the senders
//! wait.

use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::to_bytes,
    extract::{Request, State},
    http::{Method, StatusCode, header::RETRY_AFTER},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use futures::future::join_all;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use upload_gateway_client::{
    Client, Source,
    proto::v1::{
        FileMetadata, Open, Phase, open, upload_request::Message,
        upload_service_client::UploadServiceClient,
    },
};

use super::{
    PART,
    common::{self, Conversation, WAIT_TIMEOUT, bytes, chunk, finish, message},
    discard, gateway,
};

const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>slow down</Message></Error>";

/// The state of a store that refuses PUT requests while it is busy.
struct Throttle {
    is_busy: AtomicBool,
    /// The delay that it asks for, in seconds.
    retry_after: Option<u32>,
    /// The time of each refusal.
    refused: mpsc::UnboundedSender<Instant>,
}

/// A store that is busy until `is_busy` is cleared.
async fn busy(
    retry_after: Option<u32>,
) -> (String, Arc<Throttle>, mpsc::UnboundedReceiver<Instant>) {
    let (refused, refusals) = mpsc::unbounded_channel();
    let throttle = Arc::new(Throttle {
        is_busy: true.into(),
        retry_after,
        refused,
    });
    let layer = from_fn_with_state(Arc::clone(&throttle), pass);
    let endpoint = discard::serve(discard::store().layer(layer), Arc::default())
        .await
        .unwrap();
    (endpoint, throttle, refusals)
}

async fn pass(State(throttle): State<Arc<Throttle>>, request: Request, next: Next) -> Response {
    // Whether it compares CRC-64s, it is asked before the first part.
    let is_question = request.uri().path().contains("/.records/");
    let is_busy = throttle.is_busy.load(Ordering::SeqCst);
    if is_question || request.method() != Method::PUT || !is_busy {
        return next.run(request).await;
    }
    // A client that is answered in the middle of a body may take that for a broken connection.
    let _ = to_bytes(request.into_body(), usize::MAX).await;
    let _ = throttle.refused.send(Instant::now());
    let mut answer = (StatusCode::SERVICE_UNAVAILABLE, SLOW_DOWN).into_response();
    if let Some(seconds) = throttle.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

#[tokio::test]
async fn a_throttling_store_is_retried_after_its_delay_and_the_sender_waits() {
    const SECOND: Duration = Duration::from_secs(1);
    let Some(redis) = common::redis().await else {
        return;
    };
    let (endpoint, throttle, mut refusals) = busy(Some(1)).await;
    let gateway = gateway(&redis, &[endpoint], "parts_in_flight = 1");
    let address = format!("http://{}", gateway.address());
    let client = UploadServiceClient::connect(address).await.unwrap();
    let stream = Conversation::begin(client).await;
    let data = bytes(6 * PART);
    stream.send(common::open("a.bin", Some(data.len()))).await;
    let sent = AtomicUsize::new(0);
    let sending = async {
        for piece in data.chunks(PART / 20) {
            let offset = sent.load(Ordering::SeqCst);
            stream.send(chunk(offset, piece)).await;
            sent.fetch_add(piece.len(), Ordering::SeqCst);
        }
        stream.send(finish()).await;
    };
    let throttling = async {
        let mut last = refusals.recv().await.unwrap();
        for _ in 0..2 {
            let next = refusals.recv().await.unwrap();
            assert!(next - last >= SECOND, "{:?}", next - last);
            last = next;
        }
        // One part is in flight, the next one is received, and the rest is in the buffers of connections.
        assert!(sent.load(Ordering::SeqCst) < 3 * PART);
        throttle.is_busy.store(false, Ordering::SeqCst);
    };
    tokio::join!(sending, throttling);
    let ended = timeout(WAIT_TIMEOUT, stream.end()).await.unwrap();
    assert_eq!(ended.unwrap().phase(), Phase::Complete);
}

#[tokio::test]
async fn a_busy_store_does_not_delay_uploads_to_another() {
    let Some(redis) = common::redis().await else {
        return;
    };
    let (endpoint, _throttle, mut refusals) = busy(Some(1)).await;
    let stores = [
        discard::serve(discard::store(), Arc::default())
            .await
            .unwrap(),
        endpoint,
    ];
    let limits =
        "parts_in_flight_total = 2\nstore_retry_timeout_seconds = 120\ncommit_lease_seconds = 180";
    let gateway = gateway(&redis, &stores, limits);
    let address = format!("http://{}", gateway.address());
    let client = UploadServiceClient::connect(address).await.unwrap();
    // More parts than may be in flight, over the same connection.
    let data = bytes(PART);
    let mut stuck = Vec::new();
    for _ in 0..3 {
        let stream = Conversation::begin(client.clone()).await;
        let file = FileMetadata {
            file_name: "stuck.bin".into(),
            storage_id: "1".into(),
            ..FileMetadata::default()
        };
        stream
            .send(message(Message::Open(Open {
                target: Some(open::Target::File(file)),
                ..Open::default()
            })))
            .await;
        stream.send_in_chunks(0, &data, 1 << 20).await;
        stuck.push(stream);
    }
    for _ in 0..2 {
        refusals.recv().await.unwrap();
    }
    let stream = Conversation::begin(client).await;
    stream.send(common::open("a.bin", None)).await;
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.send(finish()).await;
    let ended = timeout(WAIT_TIMEOUT, stream.end()).await.unwrap();
    assert_eq!(ended.unwrap().phase(), Phase::Complete);
}

#[tokio::test]
async fn retries_to_a_busy_store_stay_within_the_budget() {
    const UPLOADS: usize = 300;
    const BUSY: Duration = Duration::from_secs(2);
    let Some(redis) = common::redis().await else {
        return;
    };
    let (endpoint, throttle, mut refusals) = busy(None).await;
    let gateway = gateway(&redis, &[endpoint], "");
    let client = Client::connect(&format!("http://{}", gateway.address())).unwrap();
    let upload = || async {
        let source = Source::seekable(Cursor::new(b"x"));
        let uploaded = client.upload("a.bin", source).size(1).await;
        assert_eq!(uploaded.unwrap().size, 1);
    };
    let begun = Instant::now();
    let outage = async {
        for _ in 0..UPLOADS {
            refusals.recv().await.unwrap();
        }
        // The rate of the retries is measured over this time.
        sleep(BUSY).await;
        throttle.is_busy.store(false, Ordering::SeqCst);
        begun.elapsed().as_secs_f64()
    };
    let uploads = join_all((0..UPLOADS).map(|_| upload()));
    let (_, seconds) = timeout(WAIT_TIMEOUT, async { tokio::join!(uploads, outage) })
        .await
        .unwrap();
    // The first refusal of each upload is no retry.
    let retries = std::iter::from_fn(|| refusals.try_recv().ok()).count();
    // The retry budget: 100 saved up, 10 a second, and a tenth of the calls, of which each upload makes a few.
    let budget = 100.0 + 10.0 * (seconds + 1.0) + UPLOADS as f64 / 2.0;
    assert!(retries as f64 <= budget, "{retries} retries in {seconds} s");
}

#[tokio::test]
async fn a_store_that_is_down_takes_no_retries_from_another() {
    const UPLOADS: usize = 300;
    let Some(redis) = common::redis().await else {
        return;
    };
    let (down, _throttle, mut refusals) = busy(None).await;
    let (healthy, throttle, mut refused) = busy(None).await;
    let gateway = gateway(&redis, &[healthy, down], "store_retry_timeout_seconds = 20");
    let client = Client::connect(&format!("http://{}", gateway.address())).unwrap();
    let upload = |storage_id: &'static str| {
        let client = client.clone();
        async move {
            let source = Source::seekable(Cursor::new(b"x"));
            let upload = client.upload("a.bin", source).size(1);
            upload.storage(storage_id).await
        }
    };
    let mut stuck = JoinSet::new();
    for _ in 0..UPLOADS {
        stuck.spawn(upload("1"));
    }
    // More requests than the uploads and the saved retries: the budget is empty.
    for _ in 0..UPLOADS + 100 {
        refusals.recv().await.unwrap();
    }
    let begun = Instant::now();
    let released = async {
        refused.recv().await.unwrap();
        throttle.is_busy.store(false, Ordering::SeqCst);
    };
    let (stored, ()) = tokio::join!(upload("0"), released);
    assert_eq!(stored.unwrap().size, 1);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}
