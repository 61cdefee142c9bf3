//! A TCP forwarder between a client and servers that start and stop. It can hold back what clients send.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::wait::WAIT_TIMEOUT;

/// A client that sends nothing for this long has stopped sending.
const MOMENT: Duration = Duration::from_millis(300);

/// Forwards connections to the servers in turn and skips servers that refuse.
#[derive(Debug)]
pub struct Forwarder {
    /// Its listen address, `127.0.0.1:PORT`.
    pub address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    servers: Vec<SocketAddr>,
    next: AtomicUsize,
    held: watch::Sender<bool>,
    /// Bytes that came from clients.
    received: watch::Sender<u64>,
    /// Bytes that servers answered.
    answered: watch::Sender<u64>,
    /// Connections for which no server was reached.
    refused: watch::Sender<u64>,
}

// === impl Forwarder ===

impl Forwarder {
    /// Forwards to `servers`.
    pub async fn start(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            servers: servers.into_iter().collect(),
            next: AtomicUsize::new(0),
            held: watch::Sender::new(false),
            received: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            refused: watch::Sender::new(0),
        });
        let accepting = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, Arc::clone(&accepting)));
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Holds back what clients send, also after they disconnect, until [`Forwarder::release`].
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Forwards what was held back, and everything that follows.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Bytes that clients have sent so far.
    pub fn received(&self) -> u64 {
        *self.shared.received.borrow()
    }

    /// Waits until clients have sent `bytes`.
    pub async fn has_received(&self, bytes: u64) {
        at_least(&self.shared.received, bytes).await;
    }

    /// Waits until clients have sent nothing for [`MOMENT`].
    pub async fn is_quiet(&self) {
        let mut received = self.shared.received.subscribe();
        while timeout(MOMENT, received.changed()).await.is_ok() {}
    }

    /// Bytes that servers have answered so far.
    pub fn answered(&self) -> u64 {
        *self.shared.answered.borrow()
    }

    /// Waits until servers have answered `bytes`.
    pub async fn has_answered(&self, bytes: u64) {
        at_least(&self.shared.answered, bytes).await;
    }

    /// Connections that have been refused so far, because no server was reached.
    pub fn refused(&self) -> u64 {
        *self.shared.refused.borrow()
    }

    /// Waits until `connections` have been refused.
    pub async fn has_refused(&self, connections: u64) {
        at_least(&self.shared.refused, connections).await;
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn at_least(count: &watch::Sender<u64>, bytes: u64) {
    let mut count = count.subscribe();
    let reached = timeout(WAIT_TIMEOUT, count.wait_for(|count| *count >= bytes)).await;
    reached.expect("too few bytes or connections").unwrap();
}

async fn forward(client: TcpStream, shared: Arc<Shared>) {
    let turn = shared.next.fetch_add(1, Ordering::Relaxed);
    for skipped in 0..shared.servers.len() {
        let server = shared.servers[(turn + skipped) % shared.servers.len()];
        if let Ok(server) = TcpStream::connect(server).await {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let (kept, queue) = mpsc::unbounded_channel();
            tokio::spawn(deliver(queue, to_server, Arc::clone(&shared)));
            tokio::spawn(answer(from_server, to_client, Arc::clone(&shared)));
            return receive(from_client, &kept, &shared).await;
        }
    }
    shared.refused.send_modify(|count| *count += 1);
}

async fn receive(
    mut client: OwnedReadHalf,
    kept: &mpsc::UnboundedSender<Vec<u8>>,
    shared: &Shared,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        shared.received.send_modify(|count| *count += length as u64);
        if kept.send(buffer[..length].to_vec()).is_err() {
            return;
        }
    }
}

/// Continues after the client has disconnected.
async fn deliver(
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    mut server: OwnedWriteHalf,
    shared: Arc<Shared>,
) {
    let mut held = shared.held.subscribe();
    while let Some(bytes) = queue.recv().await {
        let _ = held.wait_for(|held| !held).await;
        if server.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = held.wait_for(|held| !held).await;
}

async fn answer(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, shared: Arc<Shared>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = server.read(&mut buffer).await {
        shared.answered.send_modify(|count| *count += length as u64);
        // The server may continue to answer after the client has disconnected.
        let _ = client.write_all(&buffer[..length]).await;
    }
}
