//! A slow link to a server: all connections share its rate.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// Bytes that pass at a time.
const SLICE: usize = 16 * 1024;

/// Forwards connections to a server. The bytes for the server pass at a rate; answers are not delayed.
#[derive(Debug)]
pub struct SlowLink {
    /// Its listen address, `127.0.0.1:PORT`.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

/// When the next bytes may pass.
type Free = Arc<Mutex<Instant>>;

// === impl SlowLink ===

impl SlowLink {
    /// A link to `server` that takes `rate` bytes per second.
    pub fn start(server: SocketAddr, rate: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that the sender notices the rate.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let free = Arc::new(Mutex::new(Instant::now()));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, Arc::clone(&free), rate));
                tokio::spawn(answer(from_server, to_client));
            }
        });
        Self { address, task }
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, free: Free, rate: u32) {
    let mut buffer = vec![0; SLICE];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        let passed = {
            let mut free = free.lock().await;
            let takes = Duration::from_secs_f64(length as f64 / f64::from(rate));
            *free = Instant::now().max(*free) + takes;
            *free
        };
        sleep_until(passed).await;
        if server.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn answer(mut server: OwnedReadHalf, mut client: OwnedWriteHalf) {
    // The end of the connection ends the copy.
    let _ = copy(&mut server, &mut client).await;
}
