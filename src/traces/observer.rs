//! The spans of one call: the call itself, the parts that it stores, and its calls to stores.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::BoxFuture;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, SpanKind, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use upload_gateway_core::{
    call,
    error::Result,
    observe::{Observe, PartToStore},
    upload::{Origin, Upload},
};

use super::{
    Traces,
    limit::Limit,
    span::{CANCELLED, Ended, Outcome, Running},
};
use crate::status;

/// How many other calls one call is linked to. It works on one upload, seldom on two.
const MAX_LINKS: usize = 8;

/// How many calls to stores a part has at most; with retries a few.
const MAX_CALLS_OF_PART: usize = 16;

/// A call that is traced. Clones share it.
#[derive(Clone)]
pub(super) struct Call(Arc<Inner>);

struct Inner {
    traces: Traces,
    context: SpanContext,
    parts: Limit,
    calls: Limit,
    seen: Mutex<Seen>,
}

/// What the call works on.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The id of the last upload.
    pub(super) upload_id: Option<String>,
    /// The calls that created its uploads.
    pub(super) links: Vec<SpanContext>,
}

/// What the spans of calls to stores belong to. It is in the scope of the running call.
#[derive(Debug, Clone)]
pub(super) enum Parent {
    Call(Call),
    Part(Arc<PartOfCall>),
}

/// A part that is being stored. Only at its end it is known whether it is reported, with its calls to stores.
#[derive(Debug)]
pub(super) struct PartOfCall {
    call: Call,
    context: SpanContext,
    calls: Mutex<Vec<Ended>>,
}

/// The span of a part. It ends when this is dropped.
struct RunningPart {
    part: Arc<PartOfCall>,
    number: u32,
    span: Option<Running>,
    outcome: Outcome,
}

/// The header of a call, as a record keeps it.
struct Kept<'a>(&'a Origin);

// === impl Call ===

impl Call {
    /// The call with this span.
    pub(super) fn new(traces: Traces, span: &Running) -> Self {
        Self(Arc::new(Inner {
            traces,
            context: span.context().clone(),
            parts: Limit::default(),
            calls: Limit::default(),
            seen: Mutex::default(),
        }))
    }

    /// What the call works on.
    pub(super) fn seen(&self) -> Seen {
        locked(&self.0.seen).clone()
    }

    /// How many spans were not reported, of parts and of calls to stores.
    pub(super) fn omitted(&self) -> [(&'static str, u64); 2] {
        [
            ("parts.omitted", self.0.parts.omitted()),
            ("calls.omitted", self.0.calls.omitted()),
        ]
    }

    /// Reports its own span.
    pub(super) fn report(&self, span: Ended) {
        self.0.traces.send(span);
    }

    fn link(&self, origin: &Origin) {
        let context =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Kept(origin));
        let origin = context.span().span_context().clone();
        let mut seen = locked(&self.0.seen);
        let is_known = |known: &SpanContext| known.span_id() == origin.span_id();
        let is_new = !is_known(&self.0.context) && !seen.links.iter().any(is_known);
        if origin.is_valid() && is_new && seen.links.len() < MAX_LINKS {
            seen.links.push(origin);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Call({:?})", self.0.context)
    }
}

impl Observe for Call {
    fn origin(&self) -> Origin {
        let context = &self.0.context;
        let flags = context.trace_flags().to_u8();
        Origin(format!(
            "00-{}-{}-{flags:02x}",
            context.trace_id(),
            context.span_id()
        ))
    }

    fn trace_id(&self) -> String {
        self.0.context.trace_id().to_string()
    }

    fn works_on(&self, upload: &Upload) {
        if let Some(origin) = &upload.origin {
            self.link(origin);
        }
        locked(&self.0.seen).upload_id = Some(upload.id.to_string());
    }

    fn around_part<'a>(
        &'a self,
        part: PartToStore,
        store: BoxFuture<'a, Result<()>>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut running = RunningPart::begin(self, part);
            let parent = Arc::new(Parent::Part(Arc::clone(&running.part)));
            let stored = call::scope(parent, store).await;
            running.outcome = outcome(&stored);
            stored
        })
    }
}

/// How a call to a store, or all calls for a part, ended.
pub(super) fn outcome<T>(result: &Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Ok,
        Err(error) => Outcome::Failed(status::row(error.kind()).label.into()),
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Parent ===

impl Parent {
    /// Begins the span of a call to a store.
    pub(super) fn begin(&self, name: &'static str) -> Running {
        let (call, context) = match self {
            Self::Call(call) => (call, &call.0.context),
            Self::Part(part) => (&part.call, &part.context),
        };
        call.0.traces.within(context, SpanKind::Client, name)
    }

    /// Takes the span of a call to a store.
    pub(super) fn take(&self, span: Ended) {
        match self {
            Self::Call(call) => {
                if call.0.calls.admits(span.took(), span.has_failed()) {
                    call.0.traces.send(span);
                }
            }
            Self::Part(part) => {
                let mut calls = locked(&part.calls);
                if calls.len() < MAX_CALLS_OF_PART {
                    calls.push(span);
                }
            }
        }
    }
}

// === impl RunningPart ===

impl RunningPart {
    fn begin(call: &Call, PartToStore { number, size }: PartToStore) -> Self {
        let span = call
            .0
            .traces
            .within(&call.0.context, SpanKind::Internal, "part");
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let span = span.with([
            KeyValue::new("part.number", i64::from(number)),
            KeyValue::new("part.size", size),
        ]);
        Self {
            part: Arc::new(PartOfCall {
                call: call.clone(),
                context: span.context().clone(),
                calls: Mutex::default(),
            }),
            number,
            span: Some(span),
            outcome: Outcome::Left(CANCELLED.into()),
        }
    }
}

impl Drop for RunningPart {
    fn drop(&mut self) {
        let Some(span) = self.span.take() else {
            return;
        };
        let PartOfCall { call, calls, .. } = &*self.part;
        let Inner { parts, traces, .. } = &*call.0;
        let span = span.end(self.outcome.clone(), Vec::new());
        let calls = std::mem::take(&mut *locked(calls));
        let has_failed = span.has_failed() || calls.iter().any(Ended::has_failed);
        if parts.admits_number(self.number, span.took(), has_failed) {
            calls.into_iter().for_each(|call| traces.send(call));
            traces.send(span);
        }
    }
}

// === impl Kept ===

impl Extractor for Kept<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0.0.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}
