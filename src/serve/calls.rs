//! What every call goes through at both edges, from the head of its request to the end of its response.
//!
//! One layer, because each layer of a router copies all routes below it for each call.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use tracing::{Instrument, Span, field};
use upload_gateway_core::{
    call::{self, Value},
    error::Error,
    retry::CallWait,
};

use super::admission::Places;
use crate::{
    auth::Authentication,
    call_end::follow,
    connections::Peer,
    grpc,
    metrics::{MeasuredCall, Metrics},
    request_id::{HEADER, RequestId},
    rest,
    status::Outcome,
    traces::{TracedCall, Traces},
};

/// What calls come in by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edge {
    Grpc,
    Http,
}

/// What a call has to do with besides its own work.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) metrics: Metrics,
    pub(super) traces: Option<Traces>,
    pub(super) authentication: Authentication,
    pub(super) places: Places,
}

/// The calls at one edge.
#[derive(Debug, Clone)]
struct AtEdge {
    calls: Arc<Calls>,
    edge: Edge,
}

// === impl Calls ===

impl Calls {
    /// Gives each call to `router` a [`RequestId`], which is in its scope, in every line that it logs, and in its response; an
    /// [`Outcome`]; a [`CallWait`], so that it waits for unavailable stores only once in all; its caller and its places. It is
    /// traced and measured.
    pub(super) fn serve(self: &Arc<Self>, router: Router, edge: Edge) -> Router {
        let calls = AtEdge {
            calls: Arc::clone(self),
            edge,
        };
        router.layer(from_fn_with_state(calls, serve))
    }
}

async fn serve(State(at): State<AtEdge>, request: Request, next: Next) -> Response {
    let id = Arc::new(RequestId::of(request.headers()));
    let traced = at.trace(&request, &id);
    let span = span(&request, &id, traced.as_ref());
    let header = id.header();
    let mut scope: Vec<Value> = vec![id, Arc::<Outcome>::default(), Arc::<CallWait>::default()];
    scope.extend(traced.iter().flat_map(TracedCall::scope));
    let run = async {
        let measured = at.measure(&request);
        let AtEdge { calls, edge } = at;
        let refuse = edge.refuse();
        let admitted = |request| {
            let run = |request| next.run(request);
            calls.places.admitted(request, refuse, run)
        };
        let authenticated = calls
            .authentication
            .authenticated(request, refuse, admitted);
        follow(authenticated.await, (measured, traced))
    };
    let mut response = call::scope_all(scope, run).instrument(span).await;
    response.headers_mut().insert(HEADER, header);
    response
}

/// The span of everything that a call logs.
fn span(request: &Request, id: &RequestId, traced: Option<&TracedCall>) -> Span {
    let peer = request.extensions().get::<Arc<Peer>>();
    let peer = peer.map(|peer| field::display(peer.address));
    let trace_id = traced.map(|traced| traced.trace_id.as_str());
    // At the highest level, so that no filter of levels drops it.
    tracing::error_span!("call", request_id = id.as_str(), peer, trace_id)
}

// === impl AtEdge ===

impl AtEdge {
    fn trace(&self, request: &Request, id: &RequestId) -> Option<TracedCall> {
        let traces = self.calls.traces.as_ref()?;
        match self.edge {
            Edge::Grpc => traces.grpc_call(request, id),
            Edge::Http => traces.http_call(request, id),
        }
    }

    fn measure(&self, request: &Request) -> MeasuredCall {
        match self.edge {
            Edge::Grpc => self.calls.metrics.grpc_call(request),
            Edge::Http => self.calls.metrics.http_call(request),
        }
    }
}

// === impl Edge ===

impl Edge {
    /// The response to a call that is refused.
    fn refuse(self) -> fn(Error) -> Response {
        match self {
            Self::Grpc => grpc::refuse,
            Self::Http => rest::refuse,
        }
    }
}
