//! What hostile clients do, for ever.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream};
use hyper::{Request, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use upload_gateway_client::proto::v1::{
    FileMetadata, ListUploadsRequest, Open, UploadRequest, open::Target,
    upload_request::Message as Content,
};

use super::hostile::Targets;

const MIB: usize = 1 << 20;

/// The size in which the bytes of a call are given to the connection.
const PIECE: usize = 64 * 1024;

const UPLOAD: &str = "UploadService/Upload";

/// How long a client waits before it repeats what failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a stalled call is kept, if the gateway does not end it.
const STALL: Duration = Duration::from_secs(120);

/// All attacks.
pub(crate) const ATTACKS: [&str; 14] = [
    "silent connections",
    "half heads",
    "connection flood",
    "stalled unary calls",
    "stalled reports",
    "stalled messages",
    "streams without open",
    "stalled bodies",
    "unread lists",
    "searches",
    "creates",
    "unread downloads",
    "large metadata",
    "resets",
];

/// Attacks on a gateway with authentication. The first one is on TLS, too.
pub(crate) const ON_CREDENTIALS: [&str; 2] = ["stalled handshakes", "forged tokens"];

/// Attacks on the memory of a gateway in a container.
pub(crate) const ON_A_CONTAINER: [&str; 2] = ["1000 stalled messages", "1000 streams without open"];

/// Runs one attack. `burn` only uses the processors; it never connects.
pub(crate) async fn run(attack: String, targets: Targets) {
    let (grpc, http) = (targets.grpc.to_string(), targets.http);
    let (grpc, http) = (grpc.as_str(), http.as_str());
    let api_key = targets.api_key.as_deref();
    let calls = |method, count, sent| calls(grpc, api_key, method, count, sent);
    match attack.as_str() {
        "burn" => burn(),
        "silent connections" => {
            let each = |address| repeat(150, move || hold(address, Vec::new()));
            tokio::join!(each(grpc), each(http));
        }
        "half heads" => {
            let head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
            repeat(150, || hold(http, head.to_vec())).await;
        }
        "connection flood" => repeat(4500, || hold(http, Vec::new())).await,
        "stalled unary calls" => {
            let sent = framed(&vec![10; 64 * 1024 - 8], 1);
            repeat(4, || calls("UploadService/GetUpload", 100, sent.clone())).await;
        }
        "stalled reports" => {
            let sent = framed(&vec![10; 4 * MIB - 8], 1);
            repeat(2, || calls("SigningService/UpdateUpload", 32, sent.clone())).await;
        }
        "stalled messages" => {
            repeat(2, || calls(UPLOAD, 128, stalled_message())).await;
        }
        "1000 stalled messages" => {
            repeat(8, || calls(UPLOAD, 125, stalled_message())).await;
        }
        "streams without open" => {
            repeat(11, || calls(UPLOAD, 100, Bytes::new())).await;
        }
        "1000 streams without open" => {
            repeat(8, || calls(UPLOAD, 125, Bytes::new())).await;
        }
        "stalled bodies" => {
            let post = format!(
                "POST /api/engine/v2/uploads HTTP/1.1\r\nHost: {http}\r\nContent-Length: {}\r\n\r\n",
                2 * MIB
            );
            let sent = [post.into_bytes(), vec![b' '; 2 * MIB - 1]].concat();
            repeat(70, || hold(http, sent.clone())).await;
        }
        "unread lists" => {
            fill(http).await;
            let request = ListUploadsRequest {
                page_size: 1000,
                ..ListUploadsRequest::default()
            };
            let sent = framed(&request.encode_to_vec(), 0);
            repeat(4, || calls("UploadService/ListUploads", 10, sent.clone())).await;
        }
        "searches" => {
            fill(http).await;
            let search = get(http, "/api/engine/v2/uploads?file_search=zzzz&limit=1000");
            repeat(16, || exchange(http, search.clone())).await;
        }
        "creates" => repeat(16, || exchange(http, create(http))).await,
        "unread downloads" => unread_downloads(grpc, http).await,
        "large metadata" => repeat(8, || large_metadata(grpc)).await,
        "resets" => repeat(4, || resets(grpc)).await,
        "stalled handshakes" => repeat(1000, || hold(grpc, Vec::new())).await,
        "forged tokens" => repeat(4, || forged_tokens(grpc)).await,
        unknown => panic!("there is no attack {unknown}"),
    }
}

/// Runs `count` clients that do the same again and again.
async fn repeat<F: Future<Output = ()> + Send>(count: usize, client: impl Fn() -> F + Sync) {
    let clients = (0..count).map(|_| async {
        loop {
            client().await;
            sleep(PAUSE).await;
        }
    });
    join_all(clients).await;
}

/// Creates the uploads that lists and searches read.
async fn fill(http: &str) {
    for _ in 0..100 {
        let creates = (0..10).map(|_| exchange(http, create(http)));
        join_all(creates).await;
    }
}

fn burn() {
    for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
        std::thread::spawn(|| {
            let mut number = 0_u64;
            loop {
                number = std::hint::black_box(number.wrapping_mul(31).wrapping_add(7));
            }
        });
    }
    std::thread::park();
}

/// Connects, sends this and then nothing, and reads nothing until the server closes the connection.
async fn hold(address: &str, sent: Vec<u8>) {
    let Ok(mut connection) = TcpStream::connect(address).await else {
        return;
    };
    if connection.write_all(&sent).await.is_ok() {
        let mut received = [0; 1024];
        let read = async { while matches!(connection.read(&mut received).await, Ok(1..)) {} };
        // Fails after that time.
        let _ = timeout(STALL, read).await;
    }
}

/// Connects, sends a request and reads the whole response.
async fn exchange(address: &str, sent: Vec<u8>) {
    let Ok(mut connection) = TcpStream::connect(address).await else {
        return;
    };
    if connection.write_all(&sent).await.is_ok() {
        let mut received = Vec::new();
        let _ = connection.read_to_end(&mut received).await;
    }
}

fn get(http: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").into_bytes()
}

fn create(http: &str) -> Vec<u8> {
    let path = "/api/engine/v2/uploads?file_name=hostile.bin&file_size=50000000";
    let head = "Content-Length: 0\r\nConnection: close";
    format!("POST {path} HTTP/1.1\r\nHost: {http}\r\n{head}\r\n\r\n").into_bytes()
}

/// A gRPC message, of which the last `missing` bytes are not sent.
fn framed(message: &[u8], missing: usize) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let sent = &message[..message.len() - missing];
    [&[0][..], &length, sent].concat().into()
}

/// The first message of a stream, and the largest one without its last byte.
fn stalled_message() -> Bytes {
    let chunk = framed(&vec![10; 4 * MIB - 8], 1);
    [framed(&open(), 0), chunk].concat().into()
}

fn open() -> Vec<u8> {
    let file = FileMetadata {
        file_name: "hostile.bin".into(),
        ..FileMetadata::default()
    };
    let open = Open {
        target: Some(Target::File(file)),
        ..Open::default()
    };
    let request = UploadRequest {
        message: Some(Content::Open(open)),
    };
    request.encode_to_vec()
}

async fn connect(address: &str) -> Option<http2::SendRequest<Body>> {
    let io = TokioIo::new(TcpStream::connect(address).await.ok()?);
    let connected = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(65_535)
        .max_header_list_size(1 << 20)
        .handshake(io);
    let (sender, connection) = connected.await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

fn request(method: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://gateway/uploadgateway.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

/// Makes calls over one connection. Each sends this and then nothing, and nothing of a response is read.
async fn calls(address: &str, api_key: Option<&str>, method: &str, count: usize, sent: Bytes) {
    let Some(mut sender) = connect(address).await else {
        return;
    };
    let mut answers = Vec::new();
    for _ in 0..count {
        // The calls share the bytes.
        let pieces: Vec<_> = sent
            .chunks(PIECE)
            .map(|piece| sent.slice_ref(piece))
            .collect();
        let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
        let body = Body::from_stream(pieces.chain(stream::pending()));
        let mut call = request(method, body);
        if let Some(api_key) = api_key {
            let value = api_key.parse().unwrap();
            call.headers_mut().insert("x-api-key", value);
        }
        if sender.ready().await.is_err() {
            return;
        }
        answers.push(sender.send_request(call));
    }
    let held = join_all(answers.into_iter().map(|answer| async {
        let answer: Option<hyper::Response<Incoming>> = answer.await.ok();
        // An answer is kept and not read.
        if answer.is_some_and(|answer| !answer.headers().contains_key("grpc-status")) {
            std::future::pending::<()>().await;
        }
    }));
    let _ = timeout(STALL, held).await;
}

/// Uploads a file, and downloads it many times without reading.
async fn unread_downloads(grpc: &str, http: &str) {
    let client = upload_gateway_client::Client::connect(&format!("http://{grpc}")).unwrap();
    let data = std::io::Cursor::new(vec![7; 8 * MIB]);
    let source = upload_gateway_client::Source::seekable(data);
    let upload = client.upload("large.bin", source).size(8 * MIB as u64);
    let Ok(uploaded) = upload.await else { return };
    let signed = client.sign_download(&uploaded.upload.upload_id, 0).await;
    let url = signed.unwrap().url;
    let (store, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let through = get(
        http,
        &format!(
            "/api/engine/v2/uploads/{}/download",
            uploaded.upload.upload_id
        ),
    );
    let signed = get(store, &format!("/{path}"));
    let from_gateway = repeat(300, || unread(http, through.clone()));
    tokio::join!(from_gateway, repeat(300, || unread(store, signed.clone())));
}

/// Sends a request, and reads one byte of the response in ten seconds.
async fn unread(address: &str, sent: Vec<u8>) {
    let Ok(mut connection) = TcpStream::connect(address).await else {
        return;
    };
    if connection.write_all(&sent).await.is_err() {
        return;
    }
    let mut received = [0];
    while matches!(connection.read(&mut received).await, Ok(1..)) {
        sleep(Duration::from_secs(10)).await;
    }
}

/// Calls with more metadata than the gateway takes.
async fn large_metadata(address: &str) {
    let Some(mut sender) = connect(address).await else {
        return;
    };
    for _ in 0..100 {
        let mut call = request("UploadService/GetLimits", Body::from(framed(&[], 0)));
        let value = "x".repeat(100_000).parse().unwrap();
        call.headers_mut().insert("x-large", value);
        if sender.ready().await.is_err() || sender.send_request(call).await.is_err() {
            return;
        }
    }
}

/// Presents tokens of which no two have the same key id.
async fn forged_tokens(address: &str) {
    let Some(mut sender) = connect(address).await else {
        return;
    };
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    for _ in 0..100 {
        let mut call = request("UploadService/GetLimits", Body::from(framed(&[], 0)));
        let header = part(format!(
            r#"{{"alg":"ES256","kid":"{}"}}"#,
            rand::random::<u64>()
        ));
        let claims = part(r#"{"iss":"issuer","aud":"uploads","sub":"x","exp":9999999999}"#.into());
        let token = format!("Bearer {header}.{claims}.{}", part("x".repeat(64)));
        call.headers_mut()
            .insert("authorization", token.parse().unwrap());
        if sender.ready().await.is_err() || sender.send_request(call).await.is_err() {
            return;
        }
    }
}

/// Begins calls and resets them at once.
async fn resets(address: &str) {
    let Some(mut sender) = connect(address).await else {
        return;
    };
    for _ in 0..1000 {
        if sender.ready().await.is_err() {
            return;
        }
        let call = request(
            "UploadService/GetLimits",
            Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()),
        );
        let answer = sender.send_request(call);
        let _ = timeout(Duration::from_millis(1), answer).await;
    }
}
