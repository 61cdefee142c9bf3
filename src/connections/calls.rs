//! The calls of a connection: counted from the head of the request to the end of the response.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    rt::Executor,
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::{BoxError, activity::Activity, peer::Peer};

/// Ends a call from outside, also while its client does not read the response: an HTTP/2 stream is reset, an HTTP/1.1
/// connection closed. In the extensions of every request.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndCall(CancellationToken);

/// Makes a client use another connection for its next calls: HTTP/2 sends GOAWAY, and running calls continue. In the extensions
/// of every request.
#[derive(Debug, Clone)]
pub(crate) struct LeaveConnection(CancellationToken);

/// Passes requests to a service, and counts them.
#[derive(Debug)]
pub(super) struct Calls<S> {
    service: S,
    activity: Arc<Activity>,
    peer: Arc<Peer>,
    ends: Ends,
}

/// What ends the calls of a connection.
#[derive(Debug)]
enum Ends {
    /// HTTP/1.1 has one call at a time. Its end is that of the connection.
    Connection(EndCall),
    /// HTTP/2: each call has a task of its own, which ends.
    Task(Spawner),
}

/// Starts the tasks of HTTP/2 calls. hyper starts one directly after it has passed the request to the service.
#[derive(Debug, Clone, Default)]
pub(super) struct Spawner {
    /// What ends the call that was passed to the service last.
    next: Arc<Mutex<Option<EndCall>>>,
}

/// The body of a response, during which its call counts.
#[derive(Debug)]
pub(super) struct CountedBody<B> {
    body: B,
    _call: Call,
}

/// A running call.
#[derive(Debug)]
struct Call(Arc<Activity>);

// === impl EndCall ===

impl EndCall {
    /// Ends the call when it is cancelled.
    pub(crate) fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

// === impl LeaveConnection ===

impl LeaveConnection {
    /// The client leaves the connection when it is cancelled.
    pub(crate) fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

// === impl Calls ===

impl<S> Calls<S> {
    /// The calls of an HTTP/1.1 connection, which ends when `ended` is cancelled.
    pub(super) fn new(
        service: S,
        activity: Arc<Activity>,
        peer: Arc<Peer>,
        ended: CancellationToken,
    ) -> Self {
        Self {
            service,
            activity,
            peer,
            ends: Ends::Connection(EndCall(ended)),
        }
    }

    /// The calls of an HTTP/2 connection.
    pub(super) fn spawned_by(
        spawner: &Spawner,
        service: S,
        activity: Arc<Activity>,
        peer: Arc<Peer>,
    ) -> Self {
        Self {
            service,
            activity,
            peer,
            ends: Ends::Task(spawner.clone()),
        }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Calls<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let call = Call::begin(&self.activity);
        let end = match &self.ends {
            Ends::Connection(end) => end.clone(),
            Ends::Task(spawner) => spawner.expect(),
        };
        let leave = LeaveConnection(self.activity.leaves());
        request.extensions_mut().insert(end);
        request.extensions_mut().insert(leave);
        request.extensions_mut().insert(Arc::clone(&self.peer));
        let response = self.service.clone().oneshot(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|body| CountedBody { body, _call: call }))
        })
    }
}

// === impl Spawner ===

impl Spawner {
    /// What ends the next task.
    fn expect(&self) -> EndCall {
        let end = EndCall::default();
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(end.clone());
        end
    }
}

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, call: F) {
        let next = self
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let EndCall(ended) = next.unwrap_or_default();
        tokio::spawn(async move {
            tokio::select! {
                _ = call => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

// === impl CountedBody ===

impl<B: Body<Data = Bytes> + Unpin> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Call ===

impl Call {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begin_call();
        Self(Arc::clone(activity))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.end_call();
    }
}
