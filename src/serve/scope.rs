//! The scope that every call runs in, until its response is sent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tracing::{Instrument, Span};
use upload_gateway_core::{
    call::{self, Scope},
    retry::CallWait,
};

use crate::{
    connections::Peer,
    request_id::{HEADER, RequestId},
    status::Outcome,
};

/// A response body that is sent in the scope of its call.
struct ScopedBody {
    body: Body,
    scope: Scope,
    span: Span,
}

/// Gives each call to `router` its own [`CallWait`], so that it waits for unavailable stores only once in all.
pub(super) fn scoped(router: Router) -> Router {
    router.layer(from_fn(scope))
}

async fn scope(request: Request, next: Next) -> Response {
    call::scope(Arc::new(CallWait::default()), next.run(request)).await
}

/// Gives each call to `router` its [`RequestId`], in its scope, in every line that it logs, and in its response; and its
/// [`Outcome`].
pub(super) fn identified(router: Router) -> Router {
    router.layer(from_fn(identify))
}

async fn identify(request: Request, next: Next) -> Response {
    let id = Arc::new(RequestId::of(request.headers()));
    // At the highest level, so that no filter of levels drops it.
    let peer = request.extensions().get::<Arc<Peer>>();
    let peer = peer.map(|peer| tracing::field::display(peer.address));
    let trace_id = tracing::field::Empty;
    let span = tracing::error_span!("call", request_id = id.as_str(), peer, trace_id);
    let run = async {
        next.run(request).await.map(|body| {
            Body::new(ScopedBody {
                body,
                scope: Scope::current(),
                span: Span::current(),
            })
        })
    };
    let header = id.header();
    let run = call::scope(Arc::new(Outcome::default()), run);
    let mut response = call::scope(id, run).instrument(span).await;
    response.headers_mut().insert(HEADER, header);
    response
}

// === impl ScopedBody ===

impl HttpBody for ScopedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, scope, span } = &mut *self;
        let _entered = span.enter();
        scope.enter(|| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
