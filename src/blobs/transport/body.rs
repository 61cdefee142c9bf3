//! The bodies of requests and responses.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::SendError;

/// How many bytes of a body are given to the connection at a time. The connection takes the next slice when it has room,
/// so the last slice is taken when most of the body has been sent.
const SLICE: usize = 64 * 1024;

/// The body of a request: of known length, in slices of the same memory.
#[derive(Debug)]
pub(super) struct Sliced {
    rest: Bytes,
    taken: Taken,
}

/// Whether the connection has taken the whole body of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken(Arc<AtomicBool>);

/// The body of a response. Fails if no byte arrives for too long while its reader waits.
#[derive(Debug)]
pub(in crate::blobs) struct Answer {
    body: Incoming,
    silence: Duration,
    /// The end of the running wait.
    deadline: Option<Pin<Box<Sleep>>>,
}

// === impl Sliced ===

impl Sliced {
    pub(super) fn new(body: Bytes) -> Self {
        let taken = Taken::default();
        taken.0.store(body.is_empty(), Ordering::Relaxed);
        Self { rest: body, taken }
    }

    pub(super) fn taken(&self) -> Taken {
        self.taken.clone()
    }
}

impl Body for Sliced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = SLICE.min(self.rest.len());
        let slice = self.rest.split_to(length);
        self.taken.0.store(self.rest.is_empty(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

// === impl Taken ===

impl Taken {
    pub(super) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(body: Incoming, silence: Duration) -> Self {
        Self {
            body,
            silence,
            deadline: None,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(SendError::Incomplete)));
        }
        let silence = self.silence;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(silence)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(SendError::Stalled(silence))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
