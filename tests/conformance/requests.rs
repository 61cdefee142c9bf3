//! How both adapters send requests: where to, the form of those with the bytes of a file, and their time-outs by progress.
//! The store is a socket that reads and answers as its [`Behaviour`] says.

mod endpoints;

use std::{fmt::Write, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use upload_gateway::blobs::{
    azure::{AzureConfig, AzureStore},
    s3::{S3Config, S3Store},
};
use upload_gateway_core::{
    blobs::{BlobStore, Commit, NewObject, NewPart, Put, Session},
    error::{Error, Kind},
    upload::{Integrity, MIB, Md5, UploadId, WriterTag},
};

/// The longest time without progress in these tests.
const SILENCE: Duration = Duration::from_millis(400);

const SESSION: Session<'static> = Session {
    key: "key",
    id: "session",
    scope: None,
};

#[derive(Debug, Clone, Copy)]
enum Sdk {
    S3,
    Azure,
}

/// A store that answers each request with `answer`.
#[derive(Debug, Clone)]
struct Behaviour {
    /// The pause after each 32 KiB of a body.
    pause: Duration,
    /// The number of bytes of a body after which nothing is read and nothing answered.
    stop: usize,
    /// The pause before the answer, and between its two halves.
    answer_pause: Duration,
    answer: Vec<u8>,
    /// Whether only the first half of the answer is sent.
    cut: bool,
}

/// A request as it arrived.
#[derive(Debug)]
struct Received {
    /// In lower case.
    head: String,
    body: Vec<u8>,
}

for_both_sdks! {
    a_part_is_a_body_of_known_length
    an_object_is_a_body_of_known_length
    a_part_may_take_any_time_while_its_bytes_move
    a_part_times_out_when_its_bytes_stop
    a_part_times_out_when_its_answer_does_not_come
    a_part_times_out_when_its_answer_stops
    a_throttled_part_is_congestion
    a_download_may_take_any_time_while_its_bytes_move
    a_download_times_out_when_its_bytes_stop
    a_commit_may_take_longer_than_other_requests
    a_request_without_a_body_has_a_time_limit
}

async fn a_part_is_a_body_of_known_length(kind: Sdk) {
    let (store, mut received) = kind.store(Behaviour::quick(kind.stored())).await;
    put_part(&*store, MIB).await.unwrap();
    assert_plain(&received.recv().await.unwrap(), MIB);
}

async fn an_object_is_a_body_of_known_length(kind: Sdk) {
    let (store, mut received) = kind.store(Behaviour::quick(kind.stored())).await;
    let body = bytes(MIB);
    let object = NewObject {
        md5: Some(Md5::of(&body)),
        ..object()
    };
    let put = store.put_object(&object, body.into()).await.unwrap();
    assert!(matches!(put, Put::Stored(_)));
    assert_plain(&received.recv().await.unwrap(), MIB);
}

async fn a_part_may_take_any_time_while_its_bytes_move(kind: Sdk) {
    let behaviour = Behaviour {
        pause: SILENCE / 20,
        ..Behaviour::quick(kind.stored())
    };
    let (store, mut received) = kind.store(behaviour).await;
    let begun = Instant::now();
    put_part(&*store, 3 * MIB).await.unwrap();
    assert!(begun.elapsed() > 2 * SILENCE, "{:?}", begun.elapsed());
    assert_plain(&received.recv().await.unwrap(), 3 * MIB);
}

async fn a_part_times_out_when_its_bytes_stop(kind: Sdk) {
    let behaviour = Behaviour {
        stop: 256 * 1024,
        ..Behaviour::quick(kind.stored())
    };
    let (store, _received) = kind.store(behaviour).await;
    let error = assert_times_out(put_part(&*store, 8 * MIB)).await;
    assert!(error.is_congestion(), "{error:?}");
}

async fn a_part_times_out_when_its_answer_does_not_come(kind: Sdk) {
    let behaviour = Behaviour {
        answer_pause: Duration::from_secs(60),
        ..Behaviour::quick(kind.stored())
    };
    let (store, _received) = kind.store(behaviour).await;
    let error = assert_times_out(put_part(&*store, MIB)).await;
    assert!(error.is_congestion(), "{error:?}");
}

async fn a_part_times_out_when_its_answer_stops(kind: Sdk) {
    let behaviour = Behaviour {
        cut: true,
        ..Behaviour::quick(kind.refused())
    };
    let (store, _received) = kind.store(behaviour).await;
    assert_times_out(put_part(&*store, MIB)).await;
}

async fn a_throttled_part_is_congestion(kind: Sdk) {
    let (store, _received) = kind.store(Behaviour::quick(kind.refused())).await;
    let error = put_part(&*store, MIB).await.unwrap_err();
    assert!(error.is_retryable() && error.is_congestion(), "{error:?}");
}

async fn a_download_may_take_any_time_while_its_bytes_move(kind: Sdk) {
    let content = bytes(4 * MIB);
    let behaviour = Behaviour {
        answer_pause: SILENCE * 3 / 4,
        ..Behaviour::quick(kind.object(&content))
    };
    let (store, _received) = kind.store(behaviour).await;
    let begun = Instant::now();
    let chunks = store.read("key", None, None).await.unwrap();
    let chunks: Vec<_> = chunks.try_collect().await.unwrap();
    assert!(chunks.concat() == content);
    assert!(begun.elapsed() > SILENCE, "{:?}", begun.elapsed());
}

async fn a_download_times_out_when_its_bytes_stop(kind: Sdk) {
    let behaviour = Behaviour {
        cut: true,
        ..Behaviour::quick(kind.object(&bytes(4 * MIB)))
    };
    let (store, _received) = kind.store(behaviour).await;
    let mut chunks = store.read("key", None, None).await.unwrap();
    let failed = async {
        while let Some(chunk) = chunks.next().await {
            chunk?;
        }
        Ok(())
    };
    assert_times_out(failed).await;
}

async fn a_commit_may_take_longer_than_other_requests(kind: Sdk) {
    let behaviour = Behaviour {
        answer_pause: 2 * SILENCE,
        ..Behaviour::quick(kind.committed())
    };
    let (store, _received) = kind.store(behaviour).await;
    let committed = store.commit(&SESSION, &object(), &[]).await.unwrap();
    assert_eq!(committed, Commit::Done);
}

async fn a_request_without_a_body_has_a_time_limit(kind: Sdk) {
    let behaviour = Behaviour {
        answer_pause: Duration::from_secs(60),
        ..Behaviour::quick(kind.stored())
    };
    let (store, _received) = kind.store(behaviour).await;
    assert_times_out(async { store.head("key").await.map(drop) }).await;
}

/// The request fails with an error that is worth a retry, after [`SILENCE`], and soon.
async fn assert_times_out(request: impl Future<Output = Result<(), Error>>) -> Error {
    let begun = Instant::now();
    let result = timeout(10 * SILENCE, request).await;
    let error = result.expect("the request times out").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(begun.elapsed() >= SILENCE, "{:?}", begun.elapsed());
    error
}

/// Presigned and compatible stores do not understand aws-chunked bodies, and a chunked one has no length.
fn assert_plain(received: &Received, length: u64) {
    let head = &received.head;
    assert!(
        head.contains(&format!("\r\ncontent-length: {length}\r\n")),
        "{head}"
    );
    for absent in [
        "transfer-encoding",
        "aws-chunked",
        "decoded-content-length",
        "trailer",
    ] {
        assert!(!head.contains(absent), "{head}");
    }
    assert!(received.body == bytes(length));
}

async fn put_part(store: &dyn BlobStore, size: u64) -> Result<(), Error> {
    let body = bytes(size);
    let part = NewPart {
        number: 1,
        writer: WriterTag::random(),
        checksum: Md5::of(&body).into(),
        body: body.into(),
    };
    store.put_part(&SESSION, part).await.map(drop)
}

fn object() -> NewObject {
    NewObject {
        key: "key".into(),
        mime: "video/mp4".into(),
        upload_id: UploadId::generate(None),
        size: None,
        md5: None,
        crc64nvme: None,
        integrity: Integrity::Md5,
        record: None,
        placement: Box::default(),
    }
}

/// Bytes that differ from one slice to the next.
fn bytes(size: u64) -> Vec<u8> {
    (0..size).map(|at| (at / 65_521).to_le_bytes()[0]).collect()
}

// === impl Sdk ===

impl Sdk {
    /// An adapter for a store that behaves like this, and the requests that it receives.
    async fn store(self, behaviour: Behaviour) -> (Arc<dyn BlobStore>, mpsc::Receiver<Received>) {
        self.store_at("", behaviour).await
    }

    /// As [`Sdk::store`], with this path in the endpoint.
    async fn store_at(
        self,
        path: &str,
        behaviour: Behaviour,
    ) -> (Arc<dyn BlobStore>, mpsc::Receiver<Received>) {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that the sender notices how fast the store reads.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(8).unwrap();
        let endpoint = format!("http://{}{path}", listener.local_addr().unwrap());
        let (seen, received) = mpsc::channel(8);
        tokio::spawn(serve(listener, behaviour, seen));
        (self.connect(&endpoint, None).await, received)
    }

    /// An adapter with these endpoints.
    async fn connect(self, endpoint: &str, public: Option<&str>) -> Arc<dyn BlobStore> {
        let endpoint = Some(endpoint.parse().unwrap());
        let public_endpoint = public.map(|public| public.parse().unwrap());
        match self {
            Self::S3 => {
                let mut config = S3Config::new("bucket");
                config.endpoint = endpoint;
                config.public_endpoint = public_endpoint;
                config.access_key_id = Some("key".into());
                config.secret_access_key = Some("secret".into());
                config.operation_timeout = SILENCE;
                Arc::new(S3Store::connect(config).await.unwrap())
            }
            Self::Azure => {
                let mut config = AzureConfig::new("account", "container");
                config.endpoint = endpoint;
                config.public_endpoint = public_endpoint;
                config.account_key = Some("a2V5".into());
                config.operation_timeout = SILENCE;
                Arc::new(AzureStore::connect(config).unwrap())
            }
        }
    }

    fn bucket(self) -> &'static str {
        match self {
            Self::S3 => "bucket",
            Self::Azure => "container",
        }
    }

    /// The answer to a put.
    fn stored(self) -> Vec<u8> {
        answer(
            match self {
                Self::S3 => "200 OK",
                Self::Azure => "201 Created",
            },
            &[("etag", "\"some-etag\"")],
            b"",
        )
    }

    fn refused(self) -> Vec<u8> {
        let body = "<Error><Code>SlowDown</Code></Error>";
        answer("503 Slow Down", &[], body.repeat(10).as_bytes())
    }

    fn committed(self) -> Vec<u8> {
        let body = "<CompleteMultipartUploadResult><ETag>\"some-etag\"</ETag></CompleteMultipartUploadResult>";
        match self {
            Self::S3 => answer("200 OK", &[], body.as_bytes()),
            Self::Azure => answer("201 Created", &[("etag", "\"some-etag\"")], b""),
        }
    }

    fn object(self, content: &[u8]) -> Vec<u8> {
        let range = format!("bytes 0-{}/{}", content.len() - 1, content.len());
        let headers = [
            ("etag", "\"some-etag\""),
            ("content-range", range.as_str()),
            ("x-ms-blob-type", "BlockBlob"),
        ];
        match self {
            Self::S3 => answer("200 OK", &headers[..1], content),
            Self::Azure => answer("206 Partial Content", &headers, content),
        }
    }
}

fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    [format!("{head}\r\n").as_bytes(), body].concat()
}

// === impl Behaviour ===

impl Behaviour {
    fn quick(answer: Vec<u8>) -> Self {
        Self {
            pause: Duration::ZERO,
            stop: usize::MAX,
            answer_pause: Duration::ZERO,
            answer,
            cut: false,
        }
    }
}

async fn serve(listener: TcpListener, behaviour: Behaviour, seen: mpsc::Sender<Received>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_one(stream, behaviour.clone(), seen.clone()));
    }
}

/// Reads one request, answers it, and keeps the connection open.
async fn serve_one(mut stream: TcpStream, behaviour: Behaviour, seen: mpsc::Sender<Received>) {
    let mut received = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    let (head, length) = loop {
        let read = stream.read(&mut buffer).await.unwrap_or_default();
        assert!(read > 0, "a request has a whole head");
        received.extend_from_slice(&buffer[..read]);
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = received.split_off(end + 4);
            let head = String::from_utf8(std::mem::replace(&mut received, body)).unwrap();
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            break (head, length);
        }
    };
    while received.len() < length {
        if received.len() >= behaviour.stop {
            return std::future::pending().await;
        }
        sleep(behaviour.pause).await;
        let read = stream.read(&mut buffer).await.unwrap_or_default();
        if read == 0 {
            return;
        }
        received.extend_from_slice(&buffer[..read]);
    }
    let _ = seen
        .send(Received {
            head,
            body: received,
        })
        .await;
    let (first, second) = behaviour.answer.split_at(behaviour.answer.len() / 2);
    sleep(behaviour.answer_pause).await;
    let _ = stream.write_all(first).await;
    if behaviour.cut {
        return std::future::pending().await;
    }
    sleep(behaviour.answer_pause).await;
    let _ = stream.write_all(second).await;
    let _: Result<_, _> = stream.read(&mut buffer).await;
}
