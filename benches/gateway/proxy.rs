//! A TCP proxy on loopback. It counts round trips, and it can delay both directions like a long way.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::Result;

/// How many bytes are read at once.
const PIECE: usize = 64 * 1024;

/// How many pieces may be in flight in one direction: together 64 MiB, more than the window of a connection.
const IN_FLIGHT: usize = 1024;

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    round_trips: Arc<AtomicU64>,
}

/// One connection: whether the server has answered since the client sent something.
#[derive(Debug)]
struct Turns {
    has_answered: AtomicBool,
    round_trips: Arc<AtomicU64>,
}

impl Proxy {
    /// To `server`. Counts round trips that contain `counted`, which is not empty.
    pub(crate) async fn counting(server: SocketAddr, counted: &'static [u8]) -> Result<Self> {
        Self::start(server, Duration::ZERO, Some(counted)).await
    }

    /// To `server`, whose round trip takes `round_trip` longer then.
    pub(crate) async fn delaying(server: SocketAddr, round_trip: Duration) -> Result<Self> {
        Self::start(server, round_trip, None).await
    }

    async fn start(
        server: SocketAddr,
        round_trip: Duration,
        counted: Option<&'static [u8]>,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let round_trips = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&round_trips);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(
                    client,
                    (server, round_trip),
                    counted,
                    Arc::clone(&counter),
                ));
            }
        });
        Ok(Self {
            address,
            round_trips,
        })
    }

    /// How often a client has sent something that counts after an answer, or at first: a round trip each, however many requests it
    /// has sent together.
    pub(crate) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }
}

async fn connect(
    client: TcpStream,
    (server, round_trip): (SocketAddr, Duration),
    counted: Option<&'static [u8]>,
    round_trips: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let turns = Arc::new(Turns {
        has_answered: AtomicBool::new(true),
        round_trips,
    });
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let delay = round_trip / 2;
    let asking = {
        let turns = Arc::clone(&turns);
        let sent = move |piece: &[u8]| {
            let counts = counted
                .is_some_and(|counted| piece.windows(counted.len()).any(|found| found == counted));
            if counts && turns.has_answered.swap(false, Ordering::Relaxed) {
                turns.round_trips.fetch_add(1, Ordering::Relaxed);
            }
        };
        forward(from_client, to_server, delay, sent)
    };
    let answered = move |_: &[u8]| turns.has_answered.store(true, Ordering::Relaxed);
    let answering = forward(from_server, to_client, delay, answered);
    tokio::try_join!(asking, answering)?;
    Ok(())
}

/// Forwards one direction to its end.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    moved: impl Fn(&[u8]) + Send + Sync,
) -> std::io::Result<()> {
    let (pieces, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let read = async {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            if from.read_buf(&mut piece).await? == 0 {
                break;
            }
            moved(&piece);
            if pieces.send((Instant::now() + delay, piece)).await.is_err() {
                break;
            }
        }
        drop(pieces);
        Ok(())
    };
    let write = async {
        while let Some((at, piece)) = arriving.recv().await {
            // A timer of Tokio takes a millisecond at least.
            if at > Instant::now() {
                sleep_until(at).await;
            }
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}
