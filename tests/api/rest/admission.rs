//! More requests at once than there is room for.

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

/// Begins a request whose body is as large as any; the status that comes before a byte of it is sent, and the connection.
async fn begin(gateway: &TestGateway) -> (u16, String, TcpStream) {
    let address = gateway.http.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let size = 2 * 1024 * 1024;
    // The gateway says 100 when it begins to read.
    let head = format!(
        "POST {BASE} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    while !told.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(connection.read_buf(&mut told).await.unwrap(), 0);
    }
    let told = String::from_utf8(told).unwrap().to_ascii_lowercase();
    let status = told.split(' ').nth(1).unwrap().parse().unwrap();
    (status, told, connection)
}

#[tokio::test]
async fn large_bodies_beyond_what_there_is_room_for_are_told_to_come_again() {
    let gateway = TestGateway::start().await;
    let mut waiting = Vec::new();
    let refused = loop {
        let (status, told, connection) = begin(&gateway).await;
        if status != 100 {
            break (status, told);
        }
        waiting.push(connection);
        assert!(waiting.len() < 100, "there is room for any number");
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
        "one without a body has room"
    );

    drop(waiting);
    let admitted = async { while begin(&gateway).await.0 != 100 {} };
    let admitted = timeout(Duration::from_secs(30), admitted).await;
    admitted.expect("there is room again");
}
