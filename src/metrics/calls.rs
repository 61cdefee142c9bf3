//! The calls at both edges, from their heads to the ends of their responses.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, Method},
    response::Response,
};
use tokio::time::Instant;
use upload_gateway_core::call;

use super::{
    Metrics, OTHER,
    families::{CallLabels, HttpLabels, RpcLabels, TraceLabel, observe_call, trace},
};
use crate::{
    call_end::Ending,
    rest::BASE,
    status::{CANCELLED, Outcome, code_name},
};

pub(super) const GRPC: &str = "grpc";
pub(super) const HTTP: &str = "http";

/// What the names of this API's methods begin with.
const API: &str = "uploadgateway.";

/// A call that runs. It is counted when this is dropped: a gRPC call that its client leaves is CANCELLED.
pub(crate) struct MeasuredCall {
    metrics: Metrics,
    begun: Instant,
    outcome: Option<Arc<Outcome>>,
    trace: Option<TraceLabel>,
    kind: Kind,
}

enum Kind {
    Rpc {
        method: Arc<str>,
        /// `None`: the response has not ended.
        code: Option<&'static str>,
    },
    Http {
        method: &'static str,
        route: String,
        /// `None`: there is no response yet.
        status: Option<u16>,
        is_whole: bool,
    },
}

// === impl Metrics ===

impl Metrics {
    /// Measures this gRPC call.
    pub(crate) fn grpc_call(&self, request: &Request) -> MeasuredCall {
        let method = request.uri().path().strip_prefix('/');
        let method = method.and_then(|method| self.0.known_calls.get(method));
        let method = Arc::clone(method.unwrap_or(&self.0.other));
        MeasuredCall::begin(self, Kind::Rpc { method, code: None })
    }

    /// Measures this HTTP request.
    pub(crate) fn http_call(&self, request: &Request) -> MeasuredCall {
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map_or(OTHER, MatchedPath::as_str).to_owned();
        let known = [
            (Method::GET, "GET"),
            (Method::HEAD, "HEAD"),
            (Method::POST, "POST"),
            (Method::PATCH, "PATCH"),
            (Method::PUT, "PUT"),
            (Method::DELETE, "DELETE"),
            (Method::OPTIONS, "OPTIONS"),
        ];
        let method = known.iter().find(|(method, _)| method == request.method());
        let kind = Kind::Http {
            method: method.map_or(OTHER, |(_, name)| name),
            route,
            status: None,
            is_whole: false,
        };
        MeasuredCall::begin(self, kind)
    }
}

// === impl MeasuredCall ===

impl MeasuredCall {
    fn begin(metrics: &Metrics, kind: Kind) -> Self {
        Self {
            metrics: metrics.clone(),
            begun: Instant::now(),
            outcome: call::current(),
            trace: trace(),
            kind,
        }
    }

    /// The edge of a call of the API, unlike health checks, reflection and unknown paths.
    fn edge(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Rpc { method, .. } => method.starts_with(API).then_some(GRPC),
            Kind::Http { route, .. } => route.starts_with(BASE).then_some(HTTP),
        }
    }

    /// Notes the status of a gRPC call, which is in its trailers, or in the head of a response without a body.
    fn finds_status(&mut self, headers: &HeaderMap) {
        if let Kind::Rpc { code, .. } = &mut self.kind
            && let Some(status) = headers.get("grpc-status")
        {
            *code = Some(code_name(status.as_bytes()));
        }
    }
}

impl Ending for MeasuredCall {
    fn responds(&mut self, response: &Response) {
        match &mut self.kind {
            Kind::Rpc { .. } => self.finds_status(response.headers()),
            Kind::Http { status, .. } => *status = Some(response.status().as_u16()),
        }
    }

    fn trails(&mut self, trailers: &HeaderMap) {
        self.finds_status(trailers);
    }

    fn ends(&mut self) {
        if let Kind::Http { is_whole, .. } = &mut self.kind {
            *is_whole = true;
        }
    }
}

impl Drop for MeasuredCall {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let families = &self.metrics.0.families;
        if let Some(edge) = self.edge() {
            let is_fault = self.outcome.as_ref().is_some_and(|found| found.is_fault());
            let fault = if is_fault { "true" } else { "false" };
            let labels = CallLabels { edge, fault };
            families.calls.get_or_create(&labels).inc();
        }
        let trace = self.trace.take();
        match &mut self.kind {
            Kind::Rpc { method, code } => {
                let labels = RpcLabels {
                    rpc_method: Arc::clone(method),
                    rpc_response_status_code: code.unwrap_or(CANCELLED),
                };
                observe_call(&families.rpc, &labels, seconds, trace);
            }
            Kind::Http {
                method,
                route,
                status,
                is_whole,
            } => {
                let labels = HttpLabels {
                    http_request_method: method,
                    http_route: std::mem::take(route),
                    http_response_status_code: status
                        .map(|status| status.to_string())
                        .unwrap_or_default(),
                    error_type: if *is_whole { "" } else { "cancelled" },
                };
                observe_call(&families.http, &labels, seconds, trace);
            }
        }
    }
}
