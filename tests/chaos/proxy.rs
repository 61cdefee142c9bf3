//! A TCP proxy that injects faults: it cuts, resets, throttles or holds connections, drops answers, or answers 503.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long one server may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum size of the head of an HTTP request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// The size of the receive buffer of a connection, in bytes.
const RECEIVE_BUFFER: u32 = 64 * 1024;

/// An answer that S3's and Azure's clients understand.
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-ms-error-code: ServerBusy\r\n\
    Content-Type: application/xml\r\nContent-Length: 61\r\nConnection: close\r\n\r\n\
    <Error><Code>SlowDown</Code><Message>busy</Message></Error>  ";

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As if there were no proxy.
    Pass,
    /// A limit in bytes a second, in each direction of each connection.
    Throttle(u32),
    /// Nothing is forwarded.
    Hold,
    /// Requests are forwarded, answers are not: connections that had an answer are reset when the mode ends.
    Silence,
    /// New connections are reset; older ones continue.
    Refuse,
    /// This percentage of new connections gets the HTTP status 503; older ones are reset.
    Unavailable(u8),
}

/// A port that leads to one server, or in turn to several.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    servers: Vec<SocketAddr>,
    /// Counts connections to the servers, which take turns.
    turn: AtomicUsize,
    accepted: AtomicU64,
    mode: watch::Sender<Mode>,
    cut: watch::Sender<Cut>,
    /// The limit for all requests together, in bytes a second.
    rate: watch::Sender<Option<u32>>,
    /// When the next bytes may pass, if there is a limit.
    free: Mutex<Instant>,
}

/// The last request to cut connections.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Connections accepted before this one.
    before: u64,
    /// Of these, every n-th one.
    every: u64,
}

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

// === impl Link ===

impl Link {
    /// Listens on `port` of 127.0.0.1; a connection is forwarded to the next of `servers` that accepts it.
    pub(crate) fn start(port: u16, servers: &[u16]) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Small, so that the client notices a slow link.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
        let listener = socket.listen(1024)?;
        let servers = servers.iter();
        let shared = Arc::new(Shared {
            servers: servers
                .map(|port| (Ipv4Addr::LOCALHOST, *port).into())
                .collect(),
            turn: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            mode: watch::Sender::new(Mode::Pass),
            cut: watch::Sender::new(Cut {
                before: 0,
                every: 1,
            }),
            rate: watch::Sender::new(None),
            free: Mutex::new(Instant::now()),
        });
        Ok(Self {
            address: listener.local_addr()?,
            accepting: tokio::spawn(accept(listener, Arc::clone(&shared))),
            shared,
        })
    }

    /// Its listen port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sets what happens to connections from now on.
    pub(crate) fn set(&self, mode: Mode) {
        if matches!(mode, Mode::Unavailable(_)) {
            self.cut(1);
        }
        self.shared.mode.send_replace(mode);
    }

    /// Limits all its requests together to this many bytes a second.
    pub(crate) fn limit(&self, rate: Option<u32>) {
        self.shared.rate.send_replace(rate);
    }

    /// Resets every n-th of the current connections.
    pub(crate) fn cut(&self, every: u64) {
        let before = self.shared.accepted.load(Ordering::Relaxed);
        self.shared.cut.send_replace(Cut { before, every });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // Fails if there are no more descriptors, and may succeed later.
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { shared.serve(client, number).await });
    }
}

// === impl Shared ===

impl Shared {
    async fn serve(&self, mut client: TcpStream, number: u64) {
        let mode = *self.mode.borrow();
        match mode {
            Mode::Refuse => return reset(&client),
            // Multiplied by 37, so that any percentage is spread evenly.
            Mode::Unavailable(percent) if number * 37 % 100 < u64::from(percent) => {
                let _ = timeout(Duration::from_secs(30), answer_unavailable(&mut client)).await;
                return;
            }
            _ => {}
        }
        let Some(mut server) = self.connect().await else {
            return reset(&client);
        };
        let ended = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let requests = self.copy(from_client, to_server, Direction::Request);
            let answers = self.copy(from_server, to_client, Direction::Answer);
            tokio::select! {
                ended = async { tokio::try_join!(requests, answers) } => ended.is_ok(),
                () = self.cut_off(number) => false,
            }
        };
        if !ended {
            reset(&client);
            reset(&server);
        }
    }

    async fn connect(&self) -> Option<TcpStream> {
        for _ in &self.servers {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let server = self.servers[turn % self.servers.len()];
            if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await {
                return Some(stream);
            }
        }
        None
    }

    async fn copy(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        direction: Direction,
    ) -> io::Result<()> {
        let mut mode = self.mode.subscribe();
        let mut piece = vec![0; 32 * 1024];
        loop {
            let length = from.read(&mut piece).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            let now = *mode.borrow_and_update();
            match now {
                Mode::Throttle(rate) => {
                    sleep(Duration::from_secs(1).mul_f64(length as f64 / f64::from(rate))).await;
                }
                Mode::Hold => {
                    let _ = mode.wait_for(|mode| *mode != now).await;
                }
                Mode::Silence if direction == Direction::Answer => {
                    let _ = mode.wait_for(|mode| *mode != now).await;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                _ => {}
            }
            if direction == Direction::Request {
                self.wait_for_turn(length).await;
            }
            to.write_all(&piece[..length]).await?;
        }
    }

    /// Returns when this many bytes of a request may pass.
    async fn wait_for_turn(&self, length: usize) {
        let Some(rate) = *self.rate.borrow() else {
            return;
        };
        let passed = {
            let mut free = self.free.lock().unwrap();
            let takes = Duration::from_secs_f64(length as f64 / f64::from(rate));
            *free = Instant::now().max(*free) + takes;
            *free
        };
        let mut changed = self.rate.subscribe();
        tokio::select! {
            () = sleep_until(passed) => {}
            _ = changed.wait_for(|now| *now != Some(rate)) => {}
        }
    }

    /// Returns when the connection with this number has to be cut.
    async fn cut_off(&self, number: u64) {
        let mut cut = self.cut.subscribe();
        let mine = |cut: &Cut| number < cut.before && number.is_multiple_of(cut.every);
        let _ = cut.wait_for(mine).await;
    }
}

/// Ends a connection so that the other side sees a reset.
fn reset(stream: &TcpStream) {
    // The other side may have closed it already.
    let _ = stream.set_zero_linger();
}

/// Reads one HTTP request and answers 503.
async fn answer_unavailable(client: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut head).await? == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let length = value("content-length:").and_then(|length| length.parse::<u64>().ok());
    if value("expect:").is_none() {
        let missing = length
            .unwrap_or_default()
            .saturating_sub((head.len() - end) as u64);
        tokio::io::copy(&mut client.take(missing), &mut tokio::io::sink()).await?;
    }
    client.write_all(UNAVAILABLE).await?;
    client.shutdown().await
}
