//! A socket that reports what it receives, and lets other connections have their turn.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// After how many reads the other tasks of the process have their turn. hyper reads as long as it can, which is 128 times in a
/// row: a client that sends much to decode, such as large metadata, would hold a thread for 10 ms.
const TURN: u32 = 4;

/// Reports the number of received bytes to the activity of its connection.
#[derive(Debug)]
pub(super) struct Counted<I> {
    io: I,
    activity: Arc<Activity>,
    /// How many reads there were in this turn.
    reads: u32,
}

// === impl Counted ===

impl<I> Counted<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>) -> Self {
        Self {
            io,
            activity,
            reads: 0,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads >= TURN {
            self.reads = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_pending() {
            self.reads = 0;
        } else {
            self.reads += 1;
            self.activity.receive(buffer.filled().len() - before);
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::poll_fn};

    use super::{super::Protocol, *};

    #[tokio::test]
    async fn a_connection_that_always_has_more_to_read_lets_others_have_their_turn() {
        let http = Protocol::Http1 {
            keep_alive: std::time::Duration::ZERO,
        };
        let mut io = Counted::new(tokio::io::repeat(7), Arc::new(Activity::new(http)));
        let mut read = || {
            let mut buffer = [0; 8];
            poll_fn(|context| Pin::new(&mut io).poll_read(context, &mut ReadBuf::new(&mut buffer)))
                .now_or_never()
                .is_some()
        };
        for _ in 0..3 {
            for _ in 0..TURN {
                assert!(read());
            }
            assert!(!read());
        }
    }
}
