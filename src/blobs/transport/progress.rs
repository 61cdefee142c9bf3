//! When bytes have moved on a connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::http::Extensions;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// When bytes have moved on a connection last.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Moments>);

/// In milliseconds after `connected`.
#[derive(Debug)]
struct Moments {
    connected: Instant,
    moved: AtomicU64,
    written: AtomicU64,
}

/// A TCP connection that records its progress.
#[derive(Debug)]
pub(super) struct Metered {
    stream: TcpStream,
    progress: Progress,
    /// Whether a proxy forwards the requests, which then name their server.
    is_forwarded: bool,
}

// === impl Progress ===

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Moments {
            connected: Instant::now(),
            moved: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }))
    }

    /// The progress of a connection of the pool.
    pub(super) fn of(connection: &Connected) -> Option<Self> {
        let mut extras = Extensions::new();
        connection.get_extras(&mut extras);
        extras.remove()
    }

    /// When the socket took or returned a byte last.
    pub(super) fn moved(&self) -> Instant {
        self.at(&self.0.moved)
    }

    /// When the socket took a byte last.
    pub(super) fn written(&self) -> Instant {
        self.at(&self.0.written)
    }

    fn at(&self, moment: &AtomicU64) -> Instant {
        self.0.connected + Duration::from_millis(moment.load(Ordering::Relaxed))
    }

    fn has_read(&self) {
        self.0.moved.store(self.now(), Ordering::Relaxed);
    }

    fn has_written(&self) {
        let now = self.now();
        self.0.moved.store(now, Ordering::Relaxed);
        self.0.written.store(now, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.connected.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

// === impl Metered ===

impl Metered {
    pub(super) fn new(stream: TcpStream, is_forwarded: bool) -> Self {
        Self {
            stream,
            progress: Progress::new(),
            is_forwarded,
        }
    }

    #[cfg(test)]
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.progress.has_written();
        }
        written
    }
}

impl Connection for Metered {
    fn connected(&self) -> Connected {
        let connected = self.stream.connected().proxy(self.is_forwarded);
        connected.extra(self.progress.clone())
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.progress.has_read();
        }
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
