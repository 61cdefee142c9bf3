//! The calls at both edges, from their heads to the ends of their responses.

use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{Next, from_fn_with_state},
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
    call_end::{Ending, follow},
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
struct RunningCall {
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

/// Traces each gRPC call to `router`, if calls are traced.
pub(crate) fn rpc_calls(router: Router, traces: Option<&Traces>) -> Router {
    match traces {
        Some(traces) => router.layer(from_fn_with_state(traces.clone(), rpc)),
        None => router,
    }
}

/// Traces each HTTP request to `router`, if calls are traced.
pub(crate) fn http_calls(router: Router, traces: Option<&Traces>) -> Router {
    match traces {
        Some(traces) => router.layer(from_fn_with_state(traces.clone(), http)),
        None => router,
    }
}

async fn rpc(State(traces): State<Traces>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if is_probe(path) {
        return next.run(request).await;
    }
    let method = match traces.0.known_calls.contains(path) {
        true => path.trim_start_matches('/'),
        false => OTHER,
    };
    let attributes = vec![
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", method.to_owned()),
    ];
    let span = traces.call(&Headers(request.headers()), method.to_owned(), attributes);
    run(traces, span, End::Rpc { code: None }, request, next).await
}

async fn http(State(traces): State<Traces>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or(OTHER, MatchedPath::as_str);
    if is_probe(route) {
        return next.run(request).await;
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
    let span = traces.call(&Headers(request.headers()), name, attributes);
    let end = End::Http {
        status: None,
        is_whole: false,
    };
    run(traces, span, end, request, next).await
}

fn is_probe(path: &str) -> bool {
    PROBES.iter().any(|probe| path.starts_with(probe))
}

/// Runs a call with this span.
async fn run(
    traces: Traces,
    span: Option<Running>,
    end: End,
    request: Request,
    next: Next,
) -> Response {
    let Some(span) = span else {
        return next.run(request).await;
    };
    let id = RequestId::current();
    let span = span.with([KeyValue::new("request_id", id.as_str().to_owned())]);
    tracing::Span::current().record("trace_id", span.context().trace_id().to_string());
    let call = Call::new(traces, &span);
    let parent = Arc::new(Parent::Call(call.clone()));
    let observer = Arc::new(Observer(Box::new(call.clone())));
    let running = RunningCall {
        call,
        span: Some(span),
        end,
    };
    let run = async {
        let response = next.run(request).await;
        follow(response, running)
    };
    call::scope(parent, call::scope(observer, run)).await
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

// === impl RunningCall ===

impl RunningCall {
    /// Notes the status of a gRPC call, which is in its trailers, or in the head of a response without a body.
    fn finds_status(&mut self, headers: &HeaderMap) {
        if let End::Rpc { code } = &mut self.end
            && let Some(status) = headers.get("grpc-status")
        {
            *code = Some(code_name(status.as_bytes()));
        }
    }
}

impl Ending for RunningCall {
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

impl Drop for RunningCall {
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
