//! More concurrent requests than the server accepts.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    client::{BASE, Http, answer},
    common::TestGateway,
};

/// Begins a request with a body of the maximum size. Returns the status that arrives before the body is sent, the head
/// of the answer, and the connection.
async fn begin(gateway: &TestGateway) -> (u16, String, TcpStream) {
    let address = gateway.http.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let size = 2 * 1024 * 1024;
    // The gateway answers 100 when it begins to read.
    let head = format!(
        "POST {BASE} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(connection.read_buf(&mut head).await.unwrap(), 0);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, connection)
}

#[tokio::test]
async fn large_bodies_above_the_limit_are_refused_with_retry_after() {
    let gateway = TestGateway::start().await;
    let mut waiting = Vec::new();
    let refused = loop {
        let (status, head, connection) = begin(&gateway).await;
        if status != 100 {
            break (status, head);
        }
        waiting.push(connection);
        assert!(waiting.len() < 100, "there is no limit");
    };
    assert_eq!((refused.0, waiting.len()), (503, 31));
    assert!(
        refused.1.contains("\r\nretry-after: 1\r\n"),
        "{}",
        refused.1
    );
    let http = Http::of(&gateway);
    assert_eq!(answer(http.request_at("GET", "/healthz")).await.status, 200);
    assert_eq!(
        http.get("").await.status,
        200,
        "a request without a body is accepted"
    );

    drop(waiting);
    let admitted = async { while begin(&gateway).await.0 != 100 {} };
    let admitted = timeout(Duration::from_secs(30), admitted).await;
    admitted.expect("requests are accepted again");
}
