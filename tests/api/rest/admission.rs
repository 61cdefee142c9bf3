//! More concurrent requests than the server accepts.

use futures::future::{join_all, select_all};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    client::{BASE, Http, answer},
    common::{TestGateway, WAIT_TIMEOUT},
};

/// The largest body in bytes.
const BODY: usize = 2 * 1024 * 1024;

/// More bodies than the server has memory for.
const CLIENTS: usize = 40;

/// Begins a request with a body of the maximum size, and sends `sent` bytes of the body.
async fn begin(gateway: &TestGateway, sent: usize) -> TcpStream {
    let address = gateway.http.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("POST {BASE} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {BODY}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&vec![b' '; sent]).await.unwrap();
    connection
}

#[tokio::test]
async fn bodies_that_do_not_arrive_take_no_room() {
    let gateway = TestGateway::start().await;
    let mut stalled = Vec::new();
    for _ in 0..2 * CLIENTS {
        stalled.push(begin(&gateway, 1000).await);
    }
    let http = Http::of(&gateway);
    assert_eq!(http.get("").await.status, 200);
    let whole = format!("{}{{}}", " ".repeat(BODY - 2));
    let create = http.request("POST", "?file_name=a&file_size=1").body(whole);
    let created = answer(create).await;
    assert_eq!(created.status, 201);
}

#[tokio::test]
async fn bodies_that_are_never_complete_make_room_for_others() {
    let gateway = TestGateway::start().await;
    let stalled = (0..CLIENTS).map(|_| begin(&gateway, BODY - 1));
    let mut stalled = join_all(stalled).await;
    let http = Http::of(&gateway);
    let whole = format!("{}{{}}", " ".repeat(BODY - 2));
    let create = http.request("POST", "?file_name=a&file_size=1").body(whole);
    let created = answer(create).await;
    assert_eq!(created.status, 201);
    assert_eq!(answer(http.request_at("GET", "/healthz")).await.status, 200);
    // One of them had to end, with an answer that says when to retry.
    let answers = stalled.iter_mut().map(|connection| {
        Box::pin(async move {
            let mut head = vec![0; 1000];
            let length = connection.read(&mut head).await.unwrap_or_default();
            String::from_utf8_lossy(&head[..length]).to_ascii_lowercase()
        })
    });
    let first = timeout(WAIT_TIMEOUT, select_all(answers)).await.unwrap();
    let answer = first.0;
    assert!(answer.starts_with("http/1.1 429"), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
}
