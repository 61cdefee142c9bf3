//! Traces of uploads at a real collector, and what happens without one.

use std::{
    collections::{BTreeSet, HashMap},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, metadata::MetadataValue, transport::Channel};
use upload_gateway::config::{ByteSize, Config};
use upload_gateway_client::proto::v1::{
    GetUploadRequest, UploadRequest, upload_service_client::UploadServiceClient,
};

use crate::common::{
    self, Collector, Conversation, Server, Span, TestGateway, bytes, chunk, collector, finish,
    gateway_process, memory_azure, open, open_known,
    signing_client::{self, Client},
};

const PART: usize = 5 << 20;

/// The trace of a caller.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Less than the time limit of a collector, 10 seconds.
const TOLERANCE: Duration = Duration::from_secs(5);

/// The span of the caller.
const PARENT: &str = "00f067aa2cb902b7";

fn traced(collector: &Collector) -> impl FnOnce(&mut Config) {
    let endpoint = collector.endpoint();
    move |config| config.traces.endpoint = Some(endpoint.parse().unwrap())
}

/// The configuration of a gateway in a process of its own.
fn toml(collector: &Collector) -> String {
    format!("[traces]\nendpoint = \"{}\"\n", collector.endpoint())
}

async fn client(server: &Server) -> UploadServiceClient<Channel> {
    let address = format!("http://{}", server.address());
    UploadServiceClient::connect(address).await.unwrap()
}

/// A request with this header.
fn with_header<T>(message: T, name: &'static str, value: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(value).unwrap();
    request.metadata_mut().insert(name, value);
    request
}

fn unknown() -> GetUploadRequest {
    GetUploadRequest {
        upload_id: "uploads-0000000000000000-00000000000000000000000000000000".into(),
    }
}

/// Uploads a small file through a gateway in a process of its own.
async fn upload(server: &Server) {
    let mut stream = Conversation::begin(client(server).await).await;
    stream.send(open("a.bin", Some(3))).await;
    stream.next().await.unwrap();
    stream.send(chunk(0, b"abc")).await;
    stream.send(finish()).await;
    stream.end().await.unwrap();
}

fn named<'a>(spans: &'a [Span], name: &'a str) -> impl Iterator<Item = &'a Span> {
    spans.iter().filter(move |span| span.name == name)
}

/// The spans that are reached from `first`: its children, what it is linked to, and what is linked to it.
fn connected(spans: &[Span], first: &Span) -> BTreeSet<String> {
    let mut found = BTreeSet::from([first.id.clone()]);
    loop {
        let before = found.len();
        for span in spans {
            let own = [&span.id, &span.parent].into_iter().chain(&span.links);
            let near: Vec<_> = own.filter(|id| !id.is_empty()).cloned().collect();
            if near.iter().any(|id| found.contains(id)) {
                found.extend(near);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn assert_connected(spans: &[Span], first: &Span) {
    let found = connected(spans, first);
    for span in spans {
        assert!(found.contains(&span.id), "{span:?}");
        assert_eq!(span.events, 0);
    }
}

#[tokio::test]
async fn a_streamed_upload_that_was_cut_and_resumed_is_one_connected_trace() {
    let Some(collector) = collector().await else {
        return;
    };
    let gateway = TestGateway::with(traced(&collector)).await;
    let data = bytes(2 * PART + 100);
    let (messages, queue) = mpsc::channel::<UploadRequest>(4);
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let request = with_header(ReceiverStream::new(queue), "traceparent", &traceparent);
    let mut client = gateway.client().await;
    let progress = client.upload_with_progress(request).await.unwrap();
    let mut progress = progress.into_inner();
    messages
        .send(open("a.bin", Some(data.len())))
        .await
        .unwrap();
    let upload_id = progress.message().await.unwrap().unwrap().upload_id;
    for (index, piece) in data[..PART + 100].chunks(1 << 20).enumerate() {
        messages.send(chunk(index << 20, piece)).await.unwrap();
    }
    while progress.message().await.unwrap().unwrap().committed_size < PART as i64 {}
    drop((messages, progress, client));

    let mut stream = gateway.converse().await;
    stream.send(open_known(&upload_id)).await;
    assert_eq!(stream.next().await.unwrap().committed_size, PART as i64);
    stream.send_in_chunks(PART, &data[PART..], 1_000_000).await;
    stream.send(finish()).await;
    stream.end().await.unwrap();
    gateway.stop().await;

    let method = "uploadgateway.v1.UploadService/UploadWithProgress";
    let spans = collector
        .received("both streams", |spans| named(spans, method).count() == 2)
        .await;
    let first = named(&spans, method).find(|span| span.parent == PARENT);
    let first = first.unwrap();
    assert_eq!(first.trace, TRACE);
    assert_eq!(first.attribute("rpc.response.status_code"), "CANCELLED");
    let second = named(&spans, method).find(|span| span.id != first.id);
    let second = second.unwrap();
    assert_ne!(second.trace, TRACE);
    assert_eq!(second.links, std::slice::from_ref(&first.id));
    assert_eq!(second.attribute("rpc.response.status_code"), "OK");
    for stream in [first, second] {
        assert_eq!(stream.attribute("upload_id"), upload_id);
        assert_eq!(stream.attribute("request_id").len(), 16);
    }
    assert_connected(&spans, first);
    let parts: HashMap<&str, &Span> = named(&spans, "part")
        .map(|part| (part.attribute("part.number"), part))
        .collect();
    assert_eq!(parts.len(), 3);
    for (number, stream, size) in [("1", first, PART), ("2", second, PART), ("3", second, 100)] {
        let part = parts[number];
        assert_eq!((&part.parent, &part.trace), (&stream.id, &stream.trace));
        assert_eq!(part.attribute("part.size"), size.to_string());
        for call in ["store.put_part", "state.record_parts"] {
            let calls = named(&spans, call).filter(|call| call.parent == part.id);
            assert_eq!(calls.count(), 1, "{call}");
        }
    }
    let commits: Vec<_> = named(&spans, "store.commit").collect();
    assert_eq!(commits.len(), 1);
    assert_eq!(commits[0].parent, second.id);
    assert_eq!(commits[0].attribute("storage"), "embedded");
}

#[tokio::test]
async fn a_signed_upload_is_one_connected_trace() {
    let Some(collector) = collector().await else {
        return;
    };
    let gateway = TestGateway::with(traced(&collector)).await;
    let mut client = Client::of(&gateway).await;
    let data = bytes(signing_client::PART + 100);
    let id = client.put_parts("a.bin", &data).await;
    client.finish(&id).await;
    gateway.stop().await;
    let last = "uploadgateway.v1.SigningService/CompleteUpload";
    let spans = collector
        .received("the last call", |spans| named(spans, last).count() == 1)
        .await;
    let create = "uploadgateway.v1.SigningService/CreateUpload";
    let create = named(&spans, create).next().unwrap();
    assert!(create.links.is_empty());
    assert_connected(&spans, create);
    let calls = spans.iter().filter(|span| span.parent.is_empty());
    let mut methods: Vec<&str> = calls
        .map(|span| {
            assert_eq!(span.attribute("upload_id"), id);
            span.name.rsplit_once('/').unwrap().1
        })
        .collect();
    methods.sort_unstable();
    let expected = [
        "CompleteUpload",
        "CreateUpload",
        "SignFinish",
        "SignPart",
        "SignPart",
        "UpdateUpload",
    ];
    assert_eq!(methods, expected);
}

#[tokio::test]
async fn after_200_parts_only_their_number_is_reported() {
    let Some(collector) = collector().await else {
        return;
    };
    let (_store, azure) = memory_azure().await;
    let endpoint = traced(&collector);
    let gateway = TestGateway::with(|config| {
        endpoint(config);
        let mut storage = azure.storage();
        storage.options.part_size = ByteSize(1 << 20);
        config.storage = vec![storage];
    })
    .await;
    let data = bytes(1 << 20);
    let size = 205 * data.len();
    let stream = gateway.converse().await;
    stream.send(open("a.bin", Some(size))).await;
    for part in 0..205 {
        stream.send(chunk(part * data.len(), &data)).await;
    }
    stream.send(finish()).await;
    stream.end().await.unwrap();
    gateway.stop().await;
    let is_whole = |span: &Span| span.name.ends_with("/UploadWithProgress");
    let spans = collector
        .received("the call", |spans| spans.iter().any(is_whole))
        .await;
    let call = spans.iter().find(|span| is_whole(span)).unwrap();
    let parts: Vec<&Span> = named(&spans, "part").collect();
    let omitted: usize = call.attribute("parts.omitted").parse().unwrap();
    // A part that was slow on this machine is reported, too.
    assert!((200..=205).contains(&parts.len()), "{}", parts.len());
    assert_eq!(parts.len() + omitted, 205);
    assert_connected(&spans, call);
}

/// How long 20 uploads take, one after the other.
async fn uploads_take(server: &Server) -> Duration {
    let begun = Instant::now();
    for _ in 0..20 {
        upload(server).await;
    }
    begun.elapsed()
}

/// Makes calls whose spans do not fit into the queue.
async fn flood(server: &Server) {
    let client = client(server).await;
    let calls = (0..1_500).map(|_| {
        let mut client = client.clone();
        async move { client.get_upload(unknown()).await.unwrap_err() }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn a_collector_that_is_killed_or_frozen_changes_nothing_for_uploads() {
    let Some(mut collector) = collector().await else {
        return;
    };
    let mut server = gateway_process(&toml(&collector));
    upload(&server).await;
    let is_upload = |span: &&Span| span.name.ends_with("/UploadWithProgress");
    let uploads = |spans: &[Span]| spans.iter().filter(is_upload).count();
    collector
        .received("an upload", |spans| uploads(spans) == 1)
        .await;

    let usual = uploads_take(&server).await;
    collector.server.pause();
    flood(&server).await;
    assert!(uploads_take(&server).await < 3 * usual + TOLERANCE);
    collector.server.resume();
    let known = uploads(&collector.spans());
    common::until("an upload after the pause", async || {
        upload(&server).await;
        uploads(&collector.spans()) > known
    })
    .await;

    collector.server.kill();
    assert!(uploads_take(&server).await < 3 * usual + TOLERANCE);
    common::until("the log", async || {
        server
            .log()
            .contains("the collector of traces is unavailable")
    })
    .await;
    let known = uploads(&collector.spans());
    collector.server.restart();
    common::until("an upload after the restart", async || {
        upload(&server).await;
        uploads(&collector.spans()) > known
    })
    .await;

    collector.server.pause();
    upload(&server).await;
    let begun = Instant::now();
    server.signal("TERM");
    assert!(server.ended().success());
    assert!(begun.elapsed() < 2 * TOLERANCE);
}

#[tokio::test]
async fn a_malformed_traceparent_begins_a_new_trace() {
    let Some(collector) = collector().await else {
        return;
    };
    let server = gateway_process(&toml(&collector));
    let mut client = client(&server).await;
    let long = format!("00-{TRACE}-{PARENT}-01{}", "-0".repeat(2_000));
    let malformed = [
        "",
        "garbage",
        "00-00000000000000000000000000000000-00f067aa2cb902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa2cb902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa2cb902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa2cb902b7-01-more",
        "00-zzf92f3577b34da6a3ce929d0e0e4736-00f067aa2cb902b7-01",
        "00--00f067aa2cb902b7-01",
        long.as_str(),
    ];
    for value in malformed {
        let refused = client.get_upload(with_header(unknown(), "traceparent", value));
        assert_eq!(refused.await.unwrap_err().code(), tonic::Code::NotFound);
    }
    let mut twice = with_header(unknown(), "traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    let second = MetadataValue::try_from(format!("00-{TRACE}-{PARENT}-01")).unwrap();
    twice.metadata_mut().append("traceparent", second);
    client.get_upload(twice).await.unwrap_err();
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let unsampled = with_header(unknown(), "traceparent", &unsampled);
    client.get_upload(unsampled).await.unwrap_err();
    let state = format!("{},a=b", "x".repeat(4_000));
    let mut sampled = with_header(unknown(), "traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    sampled
        .metadata_mut()
        .insert("tracestate", MetadataValue::try_from(state).unwrap());
    client.get_upload(sampled).await.unwrap_err();

    let is_call = |span: &&Span| span.name.ends_with("/GetUpload");
    let spans = collector
        .received("the last call", |spans| {
            spans.iter().any(|span| span.parent == PARENT)
        })
        .await;
    let calls: Vec<&Span> = spans.iter().filter(is_call).collect();
    let (known, new): (Vec<_>, Vec<_>) = calls.into_iter().partition(|span| span.trace == TRACE);
    assert_eq!(known.len(), 1);
    assert_eq!(new.len(), malformed.len() + 1);
    let traces: BTreeSet<&str> = new.iter().map(|span| span.trace.as_str()).collect();
    assert_eq!(traces.len(), new.len());
    for span in new {
        assert!(span.parent.is_empty() && span.trace.len() == 32, "{span:?}");
    }
}

#[tokio::test]
async fn a_request_id_that_is_not_sane_is_in_no_answer_no_line_and_no_span() {
    let Some(collector) = collector().await else {
        return;
    };
    let server = gateway_process(&format!(
        "log.format = \"json\"\nlog.filter = \"info,upload_gateway=debug\"\n{}",
        toml(&collector)
    ));
    let mut client = client(&server).await;
    for id in ["x".repeat(129), "x".repeat(10_000), "forged id".into()] {
        let refused = client.get_upload(with_header(unknown(), "x-request-id", &id));
        let refused = refused.await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::NotFound);
        let answered = refused.metadata().get("x-request-id").unwrap();
        assert_eq!(answered.len(), 16);
    }
    // Larger than all headers together may be.
    let huge = with_header(unknown(), "x-request-id", &"x".repeat(1 << 20));
    client.get_upload(huge).await.unwrap_err();
    send_http2(server.address(), b"forged\r\nforged: x\n{\"forged\":1}");
    let mut client = self::client(&server).await;
    let sane = with_header(unknown(), "x-request-id", "mine");
    let answered = client.get_upload(sane).await.unwrap_err();
    assert_eq!(answered.metadata().get("x-request-id").unwrap(), "mine");

    let is_last = |span: &Span| span.attribute("request_id") == "mine";
    let spans = collector
        .received("the last call", |spans| spans.iter().any(is_last))
        .await;
    let last = spans.iter().find(|span| is_last(span)).unwrap();
    for span in &spans {
        let id = span.attribute("request_id");
        assert!(id == "mine" || id.len() == 16 || id.is_empty(), "{span:?}");
    }
    let log = server.log();
    assert!(!log.contains("forged"), "{log}");
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let line = lines
        .iter()
        .find(|line| line["span"]["request_id"] == "mine");
    assert_eq!(line.unwrap()["span"]["trace_id"], last.trace.as_str());
}

/// Sends a call with this request id over HTTP/2, which carries any bytes, and waits for a frame that ends the call.
fn send_http2(address: SocketAddr, request_id: &[u8]) {
    // Of the static table: POST, http. Then literals with new names.
    let mut block = vec![0x83, 0x86];
    let path = "/uploadgateway.v1.UploadService/GetLimits";
    for (name, value) in [
        (":path", path.as_bytes()),
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
        ("x-request-id", request_id),
    ] {
        block.push(0);
        for text in [name.as_bytes(), value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text);
        }
    }
    let length = u8::try_from(block.len()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(common::WAIT_TIMEOUT)).unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    // The end of the headers and of the stream 1.
    stream.write_all(&[0, 0, length, 1, 5, 0, 0, 0, 1]).unwrap();
    stream.write_all(&block).unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        std::io::copy(
            &mut Read::by_ref(&mut stream).take(length),
            &mut std::io::sink(),
        )
        .unwrap();
        // HEADERS, RST_STREAM, GOAWAY.
        if matches!(head[3], 1 | 3 | 7) {
            return;
        }
    }
}
