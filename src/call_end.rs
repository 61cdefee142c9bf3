//! The end of a call, which is the end of its response.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderMap, header::CONTENT_LENGTH},
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tracing::Span;
use upload_gateway_core::call::Scope;

/// Learns how a call ends. It is dropped with the response, also if the client leaves before its end.
pub(crate) trait Ending: Send + Unpin + 'static {
    /// The head of the response is there.
    fn responds(&mut self, response: &Response);

    /// The trailers of the response are there.
    fn trails(&mut self, trailers: &HeaderMap);

    /// The response is whole.
    fn ends(&mut self);
}

/// The body of a response, in the scope and the span of its call.
struct Followed<E> {
    body: Body,
    /// How many bytes the head of the response announces, without those that were sent. hyper asks for no more.
    left: Option<u64>,
    call: E,
    scope: Scope,
    span: Span,
}

/// The same response, followed to its end. The body is read in the scope and the span of the running call.
pub(crate) fn follow(response: Response, mut call: impl Ending) -> Response {
    call.responds(&response);
    let length = response.headers().get(CONTENT_LENGTH);
    let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
    response.map(|body| {
        if body.is_end_stream() || left == Some(0) {
            call.ends();
        }
        Body::new(Followed {
            body,
            left,
            call,
            scope: Scope::current(),
            span: Span::current(),
        })
    })
}

// === impl Ending ===

impl<E: Ending> Ending for Option<E> {
    fn responds(&mut self, response: &Response) {
        if let Some(call) = self {
            call.responds(response);
        }
    }

    fn trails(&mut self, trailers: &HeaderMap) {
        if let Some(call) = self {
            call.trails(trailers);
        }
    }

    fn ends(&mut self) {
        if let Some(call) = self {
            call.ends();
        }
    }
}

impl<A: Ending, B: Ending> Ending for (A, B) {
    fn responds(&mut self, response: &Response) {
        self.0.responds(response);
        self.1.responds(response);
    }

    fn trails(&mut self, trailers: &HeaderMap) {
        self.0.trails(trailers);
        self.1.trails(trailers);
    }

    fn ends(&mut self) {
        self.0.ends();
        self.1.ends();
    }
}

// === impl Followed ===

impl<E: Ending> HttpBody for Followed<E> {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self {
            body,
            left,
            call,
            scope,
            span,
        } = &mut *self;
        let _entered = span.enter();
        let frame = scope.enter(|| Pin::new(&mut *body).poll_frame(context));
        match &frame {
            Poll::Ready(None) => call.ends(),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    call.trails(trailers);
                }
                if let (Some(left), Some(data)) = (left.as_mut(), frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                if *left == Some(0) || body.is_end_stream() {
                    call.ends();
                }
            }
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
