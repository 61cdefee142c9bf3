//! Real sockets, with time that is paused: it advances when every task waits.

use axum::body::Body as AxumBody;
use std::{convert::Infallible, net::SocketAddr};

use futures::{StreamExt, stream};
use hyper::client::conn;
use hyper_util::rt::TokioExecutor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tower::service_fn;

use super::*;

const HTTP1: Protocol = Protocol::Http1 {
    keep_alive: Duration::from_secs(75),
};
const HTTP2: Protocol = Protocol::Http2 {
    stream_window: 65_535,
    max_concurrent_streams: 10,
};
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A listener on a free port, whose calls answer with what the test sends, or not at all.
struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    calls: mpsc::UnboundedReceiver<EndCall>,
}

impl Server {
    async fn start(protocol: Protocol, max_connections: usize, body: fn() -> AxumBody) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let listener = Listener {
            name: "test",
            tcp,
            protocol,
            tls: None,
            max_connections,
        };
        let (begun, calls) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            let end = request.extensions().get::<EndCall>().cloned();
            begun.send(end.unwrap()).unwrap();
            async move { Ok::<_, Infallible>(Response::new(body())) }
        });
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(service, stopped));
        Self {
            address,
            stop,
            serving,
            calls,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// How long the listener needs to stop.
    async fn stop(self) -> Duration {
        let begun = Instant::now();
        self.stop.send_replace(true);
        self.serving.await.unwrap();
        begun.elapsed()
    }
}

fn empty() -> AxumBody {
    AxumBody::empty()
}

/// One frame, and then nothing.
fn unfinished() -> AxumBody {
    let first = stream::iter([Ok::<_, Infallible>("x")]);
    AxumBody::from_stream(first.chain(stream::pending()))
}

/// After how long the server closes the connection.
async fn closed(connection: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut received = Vec::new();
    // A reset is an end, too.
    let _ = connection.read_to_end(&mut received).await;
    begun.elapsed()
}

async fn http2(
    server: &Server,
) -> (
    conn::http2::SendRequest<AxumBody>,
    JoinHandle<hyper::Result<()>>,
) {
    let io = TokioIo::new(server.connect().await);
    let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

fn request() -> Request<AxumBody> {
    Request::get("http://a/").body(empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_closed_after_ten_seconds() {
    let cases: [(_, &[u8]); 4] = [
        (HTTP1, b""),
        (HTTP1, b"GET / HTTP/1.1\r\nHo"),
        (HTTP2, b""),
        (HTTP2, b"PRI * HTTP/2.0\r\n"),
    ];
    for (protocol, sent) in cases {
        let server = Server::start(protocol, 10, empty).await;
        let mut silent = server.connect().await;
        silent.write_all(sent).await.unwrap();
        assert_eq!(closed(&mut silent).await.as_secs(), 10, "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn http1_connections_are_kept_between_requests_for_their_time() {
    let server = Server::start(HTTP1, 10, empty).await;
    let mut connection = server.connect().await;
    for _ in 0..2 {
        connection.write_all(REQUEST).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            connection.read_buf(&mut response).await.unwrap();
        }
        assert!(response.starts_with(b"HTTP/1.1 200 OK"));
        sleep(Duration::from_secs(70)).await;
    }
    assert_eq!(closed(&mut connection).await.as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn http2_connections_that_answer_pings_end_after_an_hour_with_goaway() {
    let server = Server::start(HTTP2, 10, empty).await;
    let (_sender, connection) = http2(&server).await;
    let begun = Instant::now();
    // The client sees no error.
    connection.await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), 60 * 60);
}

#[tokio::test(start_paused = true)]
async fn http2_connections_that_do_not_answer_pings_are_closed() {
    let server = Server::start(HTTP2, 10, empty).await;
    let mut silent = server.connect().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    silent.write_all(preface).await.unwrap();
    assert_eq!(closed(&mut silent).await, PING_INTERVAL + PING_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_connections_without_a_call() {
    for (protocol, sent) in [(HTTP1, &b"GET / HT"[..]), (HTTP2, b"PRI * HT")] {
        let server = Server::start(protocol, 10, empty).await;
        let _silent = server.connect().await;
        let mut half = server.connect().await;
        half.write_all(sent).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert!(server.stop().await < Duration::from_secs(1));
    }
    let server = Server::start(HTTP2, 10, empty).await;
    let (_sender, connection) = http2(&server).await;
    sleep(Duration::from_secs(1)).await;
    assert!(server.stop().await <= Duration::from_secs(1));
    connection.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_running_calls() {
    let mut server = Server::start(HTTP2, 10, unfinished).await;
    let (mut sender, _connection) = http2(&server).await;
    let response = sender.send_request(request()).await.unwrap();
    let _end = server.calls.recv().await.unwrap();
    let stopping = tokio::spawn(server.stop());
    sleep(Duration::from_secs(60)).await;
    assert!(!stopping.is_finished());
    drop(response);
    assert!(timeout(Duration::from_secs(5), stopping).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_replaces_one_without_a_call() {
    let mut server = Server::start(HTTP1, 2, unfinished).await;
    let mut busy = server.connect().await;
    busy.write_all(REQUEST).await.unwrap();
    server.calls.recv().await.unwrap();
    let mut quiet = server.connect().await;
    // As long as no other connection needs its place, it stays.
    assert!(
        timeout(Duration::from_secs(5), quiet.read_u8())
            .await
            .is_err()
    );
    let mut new = server.connect().await;
    new.write_all(REQUEST).await.unwrap();
    // Without a pause, so that a flood of connections does not hold up others.
    assert_eq!(closed(&mut quiet).await, Duration::ZERO);
    server.calls.recv().await.unwrap();
    // Now both places have calls, and the next connection waits.
    let mut late = server.connect().await;
    late.write_all(REQUEST).await.unwrap();
    let begins = timeout(Duration::from_secs(60), server.calls.recv());
    assert!(begins.await.is_err());
    drop(busy);
    server.calls.recv().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_is_ended_from_outside_and_other_calls_of_its_connection_continue() {
    let mut server = Server::start(HTTP2, 10, unfinished).await;
    let (mut sender, _connection) = http2(&server).await;
    let mut bodies = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let response = sender.send_request(request()).await.unwrap();
        bodies.push(AxumBody::new(response.into_body()).into_data_stream());
        ends.push(server.calls.recv().await.unwrap());
    }
    ends[1].token().cancel();
    for (index, body) in bodies.iter_mut().enumerate() {
        assert_eq!(body.next().await.unwrap().unwrap(), "x");
        let next = timeout(Duration::from_secs(5), body.next()).await;
        assert_eq!(next.is_ok(), index == 1, "call {index}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_http1_call_closes_its_connection() {
    let mut server = Server::start(HTTP1, 10, unfinished).await;
    let mut connection = server.connect().await;
    connection.write_all(REQUEST).await.unwrap();
    server.calls.recv().await.unwrap().token().cancel();
    assert!(closed(&mut connection).await < Duration::from_secs(1));
}

/// The system would reset the connection, and the client could lose the response.
#[tokio::test]
async fn a_client_that_still_sends_reads_the_last_response() {
    let server = Server::start(HTTP1, 10, empty).await;
    let (mut reading, mut writing) = server.connect().await.into_split();
    let sending = tokio::spawn(async move {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
        writing.write_all(head).await.unwrap();
        // More than the socket and the server keep.
        for _ in 0..200 {
            writing.write_all(&[7; 64 * 1024]).await?;
        }
        writing.shutdown().await
    });
    let mut response = Vec::new();
    reading.read_to_end(&mut response).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn short_answers_are_sent_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, _client) = tokio::join!(listener.accept(), TcpStream::connect(address));
    let (tcp, _) = accepted.unwrap();
    set_options(&tcp);
    assert!(tcp.nodelay().unwrap());
}
