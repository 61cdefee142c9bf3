//! Connections: one accept loop for every listener, and an end for every silent connection.
//!
//! A connection without a running call ends after a time that depends on what it has sent so far. So a client that connects
//! and does nothing, or sends half of a request, holds nothing for long, and no shutdown waits for it.

mod activity;
mod calls;
mod counted;
mod descriptors;
mod open;
mod peer;
mod tls;

use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

pub use self::tls::{ClientAuth, TlsConfig};
use self::{
    activity::{Activity, Ending},
    calls::{Calls, Spawner},
    counted::Counted,
    open::{OpenConnections, Place},
};
pub(crate) use self::{
    calls::{EndCall, LeaveConnection},
    descriptors::raise_limit,
    peer::Peer,
    tls::Tls,
};

/// The pause after a failed accept, for example without a free file descriptor, instead of a busy loop. Short, because each
/// silent connection in the socket's queue costs one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How long the rest of what a client sends is discarded when its connection has ended.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The interval of HTTP/2 keep-alive pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long a connection has to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest HTTP/2 frame in bytes that the server accepts: a chunk of the preferred size in one or two frames costs fewer
/// reads and wake-ups than in 16 frames of the usual size. Only for windows that hold two of these frames.
const MAX_FRAME_SIZE: u32 = 128 * 1024;

/// The lowest value for that limit (RFC 9113, section 6.5.2), for windows that are small to save memory: a stream takes the memory
/// of one frame besides what is kept of its messages.
const MIN_FRAME_SIZE: u32 = 16 * 1024;

/// The largest metadata of a call that HTTP/2 decodes, in bytes. A client that sends up to four times as much loses only that
/// call, so it is more than the authentication layer accepts.
const MAX_METADATA: u32 = 32 * 1024;

/// How many bytes of a response hyper keeps for an HTTP/1.1 connection, or an HTTP/2 stream, whose client does not read.
const RESPONSE_BUFFER: usize = 64 * 1024;

/// How many bytes of responses the system keeps for a connection whose client does not read, instead of up to 4 MiB: enough
/// for 10 MB/s over a round trip of 100 ms, because Linux doubles it.
const SEND_BUFFER: usize = 512 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;

/// What the connections of a listener speak.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1 {
        /// How long a connection may be idle between two requests.
        keep_alive: Duration,
    },
    /// HTTP/2 with prior knowledge, as gRPC clients speak it.
    Http2 {
        /// The window of one stream in bytes.
        stream_window: u32,
        /// How many streams one connection may have at a time. Its window is as many times that of a stream, because a stream
        /// that is not read must not stop the others.
        max_concurrent_streams: u32,
    },
}

/// A bound listener and its rules.
#[derive(Debug)]
pub(crate) struct Listener {
    /// What log lines call it: `grpc`, `http`, …
    pub(crate) name: &'static str,
    /// The socket.
    pub(crate) tcp: TcpListener,
    /// What its connections speak.
    pub(crate) protocol: Protocol,
    /// TLS, below that protocol.
    pub(crate) tls: Option<Tls>,
    /// How many connections it has at a time. One more replaces one without a running call, or waits.
    pub(crate) max_connections: usize,
}

// === impl Listener ===

impl Listener {
    /// Serves connections with `service` until `stopped` is true. Then connections without a running call are closed at once,
    /// and the others when their calls have ended. Dropping the future closes all.
    ///
    /// A call finds an [`EndCall`], a [`LeaveConnection`], and the [`Peer`] in an `Arc`, in the extensions of its request.
    pub(crate) async fn serve<S, B>(self, service: S, stopped: watch::Receiver<bool>)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let open = Arc::new(OpenConnections::new(self.name, self.max_connections));
        let mut connections = JoinSet::new();
        let mut stop = pin!(until(stopped.clone()));
        loop {
            let (accepted, place) = tokio::select! {
                accepted = self.accept(&open) => accepted,
                () = &mut stop => break,
            };
            while connections.try_join_next().is_some() {}
            let activity = Arc::new(Activity::new(self.protocol));
            let listed = open.add(&activity, place);
            let (service, stopped) = (service.clone(), stopped.clone());
            let serving = Accepted {
                protocol: self.protocol,
                service,
                activity,
                stopped,
            };
            let (tcp, address) = accepted;
            let tls = self.tls.clone();
            connections.spawn(async move {
                serving.begin(tcp, address, tls).await;
                drop(listed);
            });
        }
        drop(self.tcp);
        while connections.join_next().await.is_some() {}
    }

    /// The next connection, and its place. At the limit it waits for the place outside of the socket's queue, because no other
    /// connection is asked for its place before one needs it.
    async fn accept(&self, open: &OpenConnections) -> ((TcpStream, SocketAddr), Place) {
        loop {
            match self.tcp.accept().await {
                Ok(accepted) => return (accepted, open.place().await),
                // The client has closed it already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    open.warn(&format!("connections cannot be accepted: {error}"));
                    // There may be no free file descriptor.
                    open.close_one();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // If the sender was dropped, the server stops, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// An accepted connection, and what serves it.
struct Accepted<S> {
    protocol: Protocol,
    service: S,
    activity: Arc<Activity>,
    stopped: watch::Receiver<bool>,
}

impl<S, B> Accepted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// Serves the connection to its end, after the handshake of TLS.
    async fn begin(self, tcp: TcpStream, address: SocketAddr, tls: Option<Tls>) {
        set_options(&tcp);
        let Some(tls) = tls else {
            let certificates = Vec::new();
            return self
                .serve(
                    tcp,
                    Peer {
                        address,
                        certificates,
                    },
                )
                .await;
        };
        let accepted = tokio::select! {
            accepted = tls.accept(tcp, self.protocol) => accepted,
            // The time for the first bytes is over, or another connection needs the place.
            _ = self.activity.ending() => return,
            () = until(self.stopped.clone()) => return,
        };
        match accepted {
            Ok((stream, certificates)) => {
                let peer = Peer {
                    address,
                    certificates,
                };
                self.serve(stream, peer).await;
            }
            Err(error) => tracing::debug!(%error, %address, "a TLS handshake failed"),
        }
    }

    async fn serve<I>(self, io: I, peer: Peer)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            protocol,
            service,
            activity,
            stopped,
        } = self;
        let mut counted = Counted::new(io, Arc::clone(&activity));
        let io = TokioIo::new(&mut counted);
        let (peer, ended) = (Arc::new(peer), CancellationToken::new());
        let result = match protocol {
            Protocol::Http1 { .. } => {
                // A response that ends early ends its connection.
                let calls = Calls::new(service, Arc::clone(&activity), peer, ended.clone());
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    // The activity has the limits.
                    .header_read_timeout(None)
                    .max_buf_size(RESPONSE_BUFFER)
                    .serve_connection(io, calls);
                let close =
                    |serving: Pin<&mut http1::Connection<_, _>>| serving.graceful_shutdown();
                drive(serving, close, &activity, &ended, stopped).await
            }
            Protocol::Http2 {
                stream_window,
                max_concurrent_streams,
            } => {
                let spawner = Spawner::default();
                let calls = Calls::spawned_by(&spawner, service, Arc::clone(&activity), peer);
                let serving = http2::Builder::new(spawner)
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(stream_window)
                    .initial_connection_window_size(stream_window * max_concurrent_streams)
                    .max_concurrent_streams(max_concurrent_streams)
                    .max_send_buf_size(RESPONSE_BUFFER)
                    .max_frame_size(max_frame_size(stream_window))
                    .max_header_list_size(MAX_METADATA)
                    .keep_alive_interval(Some(PING_INTERVAL))
                    .keep_alive_timeout(PING_TIMEOUT)
                    .serve_connection(io, calls);
                let close =
                    |serving: Pin<&mut http2::Connection<_, _, _>>| serving.graceful_shutdown();
                drive(serving, close, &activity, &ended, stopped).await
            }
        };
        if let Some(Err(error)) = &result {
            tracing::debug!(%error, "a connection failed");
        }
        // Not one that was dropped because its client was silent.
        if result.is_some() {
            discard_rest(&mut counted).await;
        }
    }
}

/// Sends short answers at once, and bounds what the system keeps of long ones.
fn set_options(tcp: &TcpStream) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    if let Err(error) = SockRef::from(tcp).set_send_buffer_size(SEND_BUFFER) {
        tracing::debug!(%error, "set SO_SNDBUF");
    }
}

/// Discards what the client still sends after the last response or GOAWAY. A socket that is closed before it has read
/// everything is reset, and then the client may lose that answer.
async fn discard_rest(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let discard = async {
        io.shutdown().await?;
        copy(io, &mut sink()).await
    };
    // The client has had time to read the response.
    let _ = timeout(DISCARD_TIME, discard).await;
}

/// Runs a connection to its end. `None` if it was dropped because its client was silent.
async fn drive<C: Future>(
    serving: C,
    close: impl Fn(Pin<&mut C>),
    activity: &Activity,
    ended: &CancellationToken,
    stopped: watch::Receiver<bool>,
) -> Option<C::Output> {
    let (mut serving, mut stop) = (pin!(serving), pin!(until(stopped)));
    let mut is_stopped = false;
    loop {
        let next = tokio::select! {
            result = serving.as_mut() => return Some(result),
            ending = activity.ending() => ending,
            () = ended.cancelled() => return None,
            () = &mut stop, if !is_stopped => {
                is_stopped = true;
                activity.stop()
            }
        };
        match next {
            Ending::Drop => return None,
            Ending::Close => close(serving.as_mut()),
        }
    }
}

/// The largest frame that the server accepts, in bytes, for streams with a window of this size.
fn max_frame_size(window: u32) -> u32 {
    if window < 2 * MAX_FRAME_SIZE {
        MIN_FRAME_SIZE
    } else {
        MAX_FRAME_SIZE
    }
}

#[cfg(test)]
mod tests;
