//! Tests of proxies and of the time for the send buffer. How requests are sent and time out is tested for both SDKs, with
//! the adapters.

use hyper_rustls::MaybeHttpsStream;
use tokio::{
    io::{AsyncReadExt, AsyncWrite as _, AsyncWriteExt},
    net::TcpListener,
};
use tower_service::Service as _;

use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    silence: Duration::from_secs(10),
};

/// The head of the first request at `listener`, in lower case. It is answered with `status` and nothing else.
async fn serve_one(listener: &TcpListener, status: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// The head of the first request that a proxy receives when a request for `uri` is sent.
async fn head_at_proxy(uri: &str, status: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://user:secret@{}", listener.local_addr().unwrap());
    let proxies = Matcher::builder().all(proxy).build();
    let transport = Transport::with(Route::new(proxies, client_config(None).unwrap()));
    let request = Request::get(uri).body(Bytes::new()).unwrap();
    let sent = transport.send(request, TIMEOUTS);
    let (_answer, head) = tokio::join!(sent, serve_one(&listener, status));
    head
}

#[tokio::test]
async fn a_proxy_forwards_plain_requests() {
    let head = head_at_proxy("http://store.invalid/bucket/key", "204 No Content").await;
    assert!(
        head.starts_with("get http://store.invalid/bucket/key http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("proxy-authorization: basic"), "{head}");
}

#[tokio::test]
async fn a_proxy_tunnels_tls() {
    let head = head_at_proxy("https://store.invalid/bucket/key", "403 Forbidden").await;
    assert!(
        head.starts_with("connect store.invalid:443 http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("proxy-authorization: basic"), "{head}");
}

#[tokio::test]
async fn loopback_addresses_are_reached_without_a_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxies = Matcher::builder().all("http://proxy.invalid:1").build();
    let transport = Transport::with(Route::new(proxies, client_config(None).unwrap()));
    for host in ["127.0.0.1", "localhost"] {
        let uri = format!("http://{host}:{}/", listener.local_addr().unwrap().port());
        let request = Request::get(uri).body(Bytes::new()).unwrap();
        let sent = transport.send(request, TIMEOUTS);
        let (answer, _) = tokio::join!(sent, serve_one(&listener, "200 OK"));
        assert_eq!(answer.unwrap().status().as_u16(), 200);
    }
}

#[tokio::test]
async fn requests_are_sent_at_once_from_where_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut route = Route::new(Matcher::builder().build(), client_config(None).unwrap());
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let MaybeHttpsStream::Http(connection) = route.call(uri.parse().unwrap()).await.unwrap() else {
        panic!("the connection has TLS below HTTP");
    };
    assert!(connection.inner().stream().nodelay().unwrap());
    // Else hyper would copy the slices of a body together.
    assert!(connection.inner().is_write_vectored());
}

#[test]
fn no_proxy_sees_requests_to_this_machine_or_to_metadata_services() {
    let proxies = Matcher::builder()
        .all("http://user:secret@proxy.invalid:1")
        .build();
    let route = Route::new(proxies, client_config(None).unwrap());
    let is_proxied = |host: &str| {
        let uri = format!("http://{host}/x").parse().unwrap();
        route.proxy_credentials(&uri).is_some()
    };
    for host in [
        "127.0.0.1:9000",
        "127.1.2.3",
        "[::1]:9000",
        "LocalHost:9000",
        "localhost.",
        "minio.localhost",
        "169.254.169.254",
        "169.254.170.2",
    ] {
        assert!(!is_proxied(host), "{host}");
    }
    for host in [
        "store.invalid",
        "localhost.invalid",
        "10.0.0.1",
        "[fd00::1]",
    ] {
        assert!(is_proxied(host), "{host}");
    }
}

#[test]
fn the_answer_has_the_time_that_the_send_buffer_needs() {
    // 5 MiB at 64 KiB/s.
    let drain = drain_time(Duration::from_secs(80), 5 * 1024 * 1024);
    assert_eq!(drain, Duration::from_secs(8));
    // All of a small body may still be in the buffer.
    assert_eq!(
        drain_time(Duration::from_secs(3), 1024),
        Duration::from_secs(3)
    );
    assert_eq!(drain_time(Duration::from_secs(3), 0), Duration::ZERO);
}
