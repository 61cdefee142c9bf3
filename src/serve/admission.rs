//! Limits how many calls run at once in this process.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use upload_gateway_core::error::Error;

use crate::{
    connections::EndCall,
    room::{Place, Room, Rules},
};

/// Calls that have no limit, so that a full process still says that it is alive.
const UNLIMITED: [&str; 3] = ["/healthz", "/readyz", "/grpc.health.v1.Health/Check"];

/// What an edge limits its calls with.
#[derive(Clone)]
struct Admission {
    calls: Arc<Room>,
    refuse: fn(Error) -> Response,
}

/// The body of a response, during which its call keeps its place.
struct Placed {
    body: Body,
    _place: Arc<Place>,
}

/// Room for `max` calls. At the limit, a call whose client has not sent its request ends for a new one.
pub(super) fn calls(max: u32) -> Arc<Room> {
    Room::new(Rules {
        what: "calls run",
        total: max.into(),
        wait_limit: Duration::from_secs(1),
        yields_after: Duration::from_secs(1),
        ends_after: None,
    })
}

/// Gives each call to `router` a place among `calls`, and refuses it without one.
pub(super) fn admitted(router: Router, calls: &Arc<Room>, refuse: fn(Error) -> Response) -> Router {
    let calls = Arc::clone(calls);
    router.layer(from_fn_with_state(Admission { calls, refuse }, admit))
}

async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    if UNLIMITED.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let end = request.extensions().get().map(EndCall::token);
    let place = Arc::new(admission.calls.enter(end.unwrap_or_default()));
    if let Err(error) = place.take(1).await {
        return (admission.refuse)(error);
    }
    if !request.body().is_end_stream() {
        place.wait_for_client();
    }
    request.extensions_mut().insert(Arc::clone(&place));
    let response = next.run(request).await;
    response.map(|body| {
        Body::new(Placed {
            body,
            _place: place,
        })
    })
}

// === impl Placed ===

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
