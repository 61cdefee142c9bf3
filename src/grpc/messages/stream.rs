//! Passes on the messages of a stream, and takes memory for their bytes when they arrive.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::Extensions,
};
use futures::future::BoxFuture;
use hyper::body::Frame;
use upload_gateway_core::{
    error::{Error, Kind, Result},
    gateway::MessageMemory,
};

use super::{
    compressed,
    frames::{Frames, Malformed},
};
use crate::room::Place;

/// The body of a stream, which fails with [`Refused`].
pub(in super::super) struct StreamBody {
    body: Body,
    max: u64,
    frames: Frames,
    memory: Option<Arc<MessageMemory>>,
    /// The place of the call, until its first message.
    call: Option<Weak<Place>>,
    arriving: Option<Arriving>,
}

/// A frame that waits for memory.
struct Arriving {
    frame: Option<Frame<Bytes>>,
    arriving: BoxFuture<'static, Result<()>>,
}

/// The body of an upload stream, which does not pass through tonic: tonic would keep each message until it is whole.
pub(in super::super) struct Uploading {
    pub(in super::super) body: StreamBody,
    /// Has the bytes that have arrived. What the stream has taken is to be released.
    pub(in super::super) memory: Arc<MessageMemory>,
}

/// Carries the body of an upload stream to its call.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<Uploading>>>);

/// Why a stream is not received any further.
#[derive(Debug)]
pub(in super::super) struct Refused(Mutex<Option<Error>>);

/// `request` with messages of up to `max` bytes.
pub(super) fn checked(request: Request, max: u64) -> Request {
    let call = request.extensions().get::<Weak<Place>>().cloned();
    request.map(|body| Body::new(StreamBody::new(body, max, None, call)))
}

/// `request` with its body in its extensions. `memory` is reserved for what arrives.
pub(super) fn uploading(request: Request, max: u64, memory: Arc<MessageMemory>) -> Request {
    let (mut head, body) = request.into_parts();
    let call = head.extensions.get::<Weak<Place>>().cloned();
    let body = StreamBody::new(body, max, Some(Arc::clone(&memory)), call);
    let uploading = Uploading { body, memory };
    let carried = Carried(Arc::new(Mutex::new(Some(uploading))));
    head.extensions.insert(carried);
    Request::from_parts(head, Body::empty())
}

// === impl Uploading ===

impl Uploading {
    /// The body that a request has in its extensions.
    pub(in super::super) fn taken(extensions: &mut Extensions) -> Option<Self> {
        let Carried(carried) = extensions.remove()?;
        carried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

// === impl StreamBody ===

impl StreamBody {
    fn new(
        body: Body,
        max: u64,
        memory: Option<Arc<MessageMemory>>,
        call: Option<Weak<Place>>,
    ) -> Self {
        Self {
            body,
            max,
            frames: Frames::new(max),
            memory,
            call,
            arriving: None,
        }
    }

    /// Checks what has arrived.
    fn check(&mut self, data: &[u8]) -> Result<()> {
        self.frames
            .read(data)
            .map_err(|malformed| match malformed {
                Malformed::TooLarge => {
                    Error::sequence(format!("a message is larger than {} bytes", self.max))
                        .with("max_message_size", self.max)
                }
                Malformed::Compressed => compressed(Kind::InvalidArgument),
                Malformed::Flag => {
                    Error::sequence("a message could not be decoded: its frame is malformed")
                }
            })?;
        if self.frames.has_message()
            && let Some(call) = self.call.take().and_then(|call| call.upgrade())
        {
            call.wait_for_gateway();
        }
        Ok(())
    }

    /// Reserves memory for a frame, or waits for it.
    fn arrive(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        let length = self.frames.length();
        let Some(memory) = self.memory.clone() else {
            return Some(frame);
        };
        if bytes == 0 || memory.try_arrive(bytes, length) {
            return Some(frame);
        }
        self.arriving = Some(Arriving {
            frame: Some(frame),
            arriving: Box::pin(async move { memory.arrive(bytes, length).await }),
        });
        None
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(arriving) = &mut this.arriving {
                let arrived = ready!(arriving.arriving.as_mut().poll(context));
                let frame = arriving.frame.take();
                this.arriving = None;
                return Poll::Ready(match arrived {
                    Ok(()) => frame.map(Ok),
                    Err(error) => Some(Err(Refused::boxed(error))),
                });
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into_inner()))),
                None => return Poll::Ready(None),
            };
            if let Some(data) = frame.data_ref()
                && let Err(error) = this.check(data)
            {
                return Poll::Ready(Some(Err(Refused::boxed(error))));
            }
            if let Some(frame) = this.arrive(frame) {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.arriving.is_none() && self.body.is_end_stream()
    }
}

// === impl Refused ===

impl Refused {
    fn boxed(error: Error) -> Box<dyn StdError + Send + Sync> {
        Box::new(Self(Mutex::new(Some(error))))
    }

    /// The error. `None` if it was taken already.
    pub(in super::super) fn take(&self) -> Option<Error> {
        let mut error = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        error.take()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the stream is not received any further")
    }
}

impl StdError for Refused {}
