//! The messages of an upload stream, from the body of its request.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::HttpBody;
use futures::Stream;
use tonic::{Code, Status};
use upload_gateway_core::{
    error::{Error, Kind, Reason, Result},
    gateway::{Message, MessageMemory},
};

use super::super::{
    convert,
    messages::{Reader, Refused, StreamBody, Uploading},
};

/// The messages of an upload stream.
pub(super) struct Incoming {
    /// `None` after its end.
    body: Option<StreamBody>,
    memory: Arc<MessageMemory>,
    reader: Reader,
}

// === impl Incoming ===

impl Incoming {
    pub(super) fn of(uploading: Uploading) -> Self {
        Self {
            body: Some(uploading.body),
            memory: uploading.memory,
            reader: Reader::default(),
        }
    }

    /// The error of a body that ended, if it ended within a message.
    fn truncated(&self) -> Option<Error> {
        self.reader.is_within_message().then(undecodable)
    }
}

impl Stream for Incoming {
    type Item = Result<Message>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Message>>> {
        let this = &mut *self;
        loop {
            match this.reader.next() {
                Ok(Some(read)) => return Poll::Ready(Some(convert::read(read))),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(undecodable()))),
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            // The stream has taken everything else.
            this.memory.keep(this.reader.kept());
            let last = match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.reader.push(data);
                        continue;
                    }
                    // Trailers end it.
                    Err(_) => None,
                },
                Some(Err(error)) => ended(error),
                None => this.truncated(),
            };
            this.body = None;
            return Poll::Ready(last.map(Err));
        }
    }
}

fn undecodable() -> Error {
    Error::sequence("a message could not be decoded: it is truncated or not an UploadRequest")
}

/// Why a body could not be read any further. `None` if its sender has cancelled it.
fn ended(error: Box<dyn StdError + Send + Sync>) -> Option<Error> {
    if let Some(refused) = error.downcast_ref::<Refused>().and_then(Refused::take) {
        return Some(refused);
    }
    let is_cancelled = Status::from_error(error).code() == Code::Cancelled;
    (!is_cancelled).then(|| {
        Error::new(
            Kind::Cancelled,
            Reason::ClientGone,
            "the connection of the client ended",
        )
    })
}
