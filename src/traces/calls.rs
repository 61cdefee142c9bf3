//! The calls at both edges, from their heads to the ends of their responses.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::MethodFilter,
};
use opentelemetry::{KeyValue, propagation::Extractor};
use upload_gateway_core::{call, observe::Observer};

use super::{
    Traces,
    observer::{Call, Parent},
    span::{CANCELLED, Outcome, Running},
};
use crate::{
    call_end::Ending,
    request_id::RequestId,
    status::{self, code_name},
};

/// A name that is not one of the known ones.
const OTHER: &str = "_OTHER";

/// What probes call, every few seconds: no traces, which would hide those of uploads.
const PROBES: [&str; 3] = ["/grpc.health.v1.Health/", "/healthz", "/readyz"];

/// The longest `tracestate` that is used, in bytes: what W3C Trace Context asks implementations to pass on.
const MAX_STATE: usize = 512;

/// The codes of gRPC that are errors of the server, by the semantic conventions of OpenTelemetry.
const SERVER_ERRORS: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

/// The headers of a call.
struct Headers<'a>(&'a HeaderMap);

/// The span of a call. It ends when this is dropped.
pub(crate) struct TracedCall {
    /// The id of its trace.
    pub(crate) trace_id: String,
    call: Call,
    span: Option<Running>,
    end: End,
}

/// How the call ended so far.
enum End {
    Rpc {
        /// `None`: the response has not ended.
        code: Option<&'static str>,
    },
    Http {
        /// `None`: there is no response yet.
        status: Option<StatusCode>,
        is_whole: bool,
    },
}

fn is_probe(path: &str) -> bool {
    PROBES.iter().any(|probe| path.starts_with(probe))
}

// === impl Traces ===

impl Traces {
    /// Traces this gRPC call. `None`: it is a probe, or not sampled.
    pub(crate) fn grpc_call(&self, request: &Request, id: &RequestId) -> Option<TracedCall> {
        let path = request.uri().path();
        if is_probe(path) {
            return None;
        }
        let method = match self.0.known_calls.contains(path) {
            true => path.trim_start_matches('/'),
            false => OTHER,
        };
        let attributes = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method.to_owned()),
        ];
        let span = self.call(&Headers(request.headers()), method.to_owned(), attributes)?;
        Some(TracedCall::begin(self, span, End::Rpc { code: None }, id))
    }

    /// Traces this HTTP request. `None`: it is a probe, or not sampled.
    pub(crate) fn http_call(&self, request: &Request, id: &RequestId) -> Option<TracedCall> {
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map_or(OTHER, MatchedPath::as_str);
        if is_probe(route) {
            return None;
        }
        let is_known = MethodFilter::try_from(request.method().clone()).is_ok();
        let method = match is_known {
            true => request.method().as_str(),
            false => OTHER,
        };
        let attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", route.to_owned()),
        ];
        let name = format!("{method} {route}");
        let span = self.call(&Headers(request.headers()), name, attributes)?;
        let end = End::Http {
            status: None,
            is_whole: false,
        };
        Some(TracedCall::begin(self, span, end, id))
    }
}

// === impl Headers ===

impl Extractor for Headers<'_> {
    /// The value of a header that the call has exactly once, and not too long.
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        value.to_str().ok().filter(|text| text.len() <= MAX_STATE)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

// === impl TracedCall ===

impl TracedCall {
    fn begin(traces: &Traces, span: Running, end: End, id: &RequestId) -> Self {
        let span = span.with([KeyValue::new("request_id", id.as_str().to_owned())]);
        Self {
            call: Call::new(traces.clone(), &span),
            trace_id: span.context().trace_id().to_string(),
            span: Some(span),
            end,
        }
    }

    /// What the parts of the call find in its scope.
    pub(crate) fn scope(&self) -> [call::Value; 2] {
        let parent = Arc::new(Parent::Call(self.call.clone()));
        let observer = Arc::new(Observer(Box::new(self.call.clone())));
        [parent, observer]
    }

    /// Notes the status of a gRPC call, which is in its trailers, or in the head of a response without a body.
    fn finds_status(&mut self, headers: &HeaderMap) {
        if let End::Rpc { code } = &mut self.end
            && let Some(status) = headers.get("grpc-status")
        {
            *code = Some(code_name(status.as_bytes()));
        }
    }
}

impl Ending for TracedCall {
    fn responds(&mut self, response: &Response) {
        self.finds_status(response.headers());
        if let End::Http { status, .. } = &mut self.end {
            *status = Some(response.status());
        }
    }

    fn trails(&mut self, trailers: &HeaderMap) {
        self.finds_status(trailers);
    }

    fn ends(&mut self) {
        if let End::Http { is_whole, .. } = &mut self.end {
            *is_whole = true;
        }
    }
}

impl Drop for TracedCall {
    fn drop(&mut self) {
        let Some(span) = self.span.take() else {
            return;
        };
        let seen = self.call.seen();
        let omitted = self.call.omitted().into_iter();
        let omitted = omitted.filter(|(_, count)| *count > 0).map(|(key, count)| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            KeyValue::new(key, count)
        });
        let upload_id = seen.upload_id.map(|id| KeyValue::new("upload_id", id));
        let span = span.with(self.end.attribute()).with(upload_id);
        let span = span.with(omitted);
        self.call.report(span.end(self.end.outcome(), seen.links));
    }
}

// === impl End ===

impl End {
    fn attribute(&self) -> Option<KeyValue> {
        match self {
            Self::Rpc { code } => {
                let code = code.unwrap_or(status::CANCELLED);
                Some(KeyValue::new("rpc.response.status_code", code))
            }
            Self::Http { status, .. } => {
                let status = i64::from(status.as_ref()?.as_u16());
                Some(KeyValue::new("http.response.status_code", status))
            }
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Rpc { code: Some("OK") } => Outcome::Ok,
            Self::Rpc { code: Some(code) } if SERVER_ERRORS.contains(code) => {
                Outcome::Failed((*code).into())
            }
            Self::Rpc { code } => Outcome::Left(code.unwrap_or(status::CANCELLED).into()),
            Self::Http {
                status: Some(status),
                ..
            } if status.is_server_error() => Outcome::Failed(status.as_str().to_owned().into()),
            Self::Http { is_whole: true, .. } => Outcome::Ok,
            Self::Http { .. } => Outcome::Left(CANCELLED.into()),
        }
    }
}
