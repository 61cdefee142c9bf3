//! Traces of calls, sent to a collector with the protocol of OpenTelemetry.
//!
//! Spans enter where measurements do: one layer around each edge, decorators of the two ports, and the observer that use cases
//! show the parts of a stream. No other module knows of them. A call that is not sampled has no observer.
//!
//! A collector that is slow or unavailable costs spans, and nothing else: see [`export`].

mod calls;
mod config;
mod export;
mod limit;
mod observer;
mod span;
mod stores;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use opentelemetry::{
    Context, InstrumentationScope, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, SpanKind, TraceContextExt, TraceFlags},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{
        BatchSpanProcessor, IdGenerator, RandomIdGenerator, Sampler, SamplingDecision,
        ShouldSample, SpanProcessor,
    },
};

pub use self::config::{Ratio, TracesConfig};
use self::span::Running;
pub(crate) use self::{calls::TracedCall, export::CannotExport, stores::Traced};

/// How long the process waits at its end until the collector has the last spans.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// All traces of this process. Clones share them.
#[derive(Clone)]
pub(crate) struct Traces(Arc<Inner>);

struct Inner {
    processor: BatchSpanProcessor,
    /// Decides about calls whose callers have not decided.
    sampler: Sampler,
    scope: InstrumentationScope,
    ids: RandomIdGenerator,
    /// The paths of the gRPC calls: all other paths have one name.
    known_calls: HashSet<String>,
}

/// Sends the last spans of `traces`, for at most [`LAST_EXPORT`].
pub(crate) async fn end(traces: Option<Traces>) {
    let Some(Traces(traces)) = traces else {
        return;
    };
    let sent =
        tokio::task::spawn_blocking(move || traces.processor.shutdown_with_timeout(LAST_EXPORT));
    if let Ok(Err(error)) = sent.await {
        tracing::warn!(%error, "the collector of traces does not have the last spans");
    }
}

// === impl Traces ===

impl Traces {
    /// Begins to send traces. `None`: `config` names no collector. `known_calls` are the paths of all gRPC calls.
    ///
    /// # Errors
    /// A file or a variable of the environment cannot be used.
    pub(crate) fn begin(
        config: &TracesConfig,
        known_calls: HashSet<String>,
    ) -> Result<Option<Self>, CannotExport> {
        let Some(processor) = export::processor(config)? else {
            return Ok(None);
        };
        let of_new_traces = Sampler::TraceIdRatioBased(config.sample_ratio.get());
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Some(Self(Arc::new(Inner {
            processor,
            sampler: Sampler::ParentBased(Box::new(of_new_traces)),
            scope,
            ids: RandomIdGenerator::default(),
            known_calls,
        }))))
    }

    /// Begins the span of a call, in the trace that `headers` name, or in a new one if they name none. `None`: the trace is not
    /// sampled.
    fn call(
        &self,
        headers: &dyn Extractor,
        name: String,
        attributes: Vec<KeyValue>,
    ) -> Option<Running> {
        let Inner { sampler, ids, .. } = &*self.0;
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), headers);
        let parent = context.span().span_context().clone();
        let trace_id = match parent.is_valid() {
            true => parent.trace_id(),
            false => ids.new_trace_id(),
        };
        let sampled = sampler.should_sample(
            Some(&context),
            trace_id,
            &name,
            &SpanKind::Server,
            &attributes,
            &[],
        );
        if sampled.decision != SamplingDecision::RecordAndSample {
            return None;
        }
        let context = SpanContext::new(
            trace_id,
            ids.new_span_id(),
            TraceFlags::SAMPLED,
            false,
            sampled.trace_state,
        );
        let span = Running::begin(context, &parent, SpanKind::Server, name.into());
        Some(span.with(attributes))
    }

    /// Begins a span within another one.
    fn within(&self, parent: &SpanContext, kind: SpanKind, name: &'static str) -> Running {
        let context = SpanContext::new(
            parent.trace_id(),
            self.0.ids.new_span_id(),
            parent.trace_flags(),
            false,
            parent.trace_state().clone(),
        );
        Running::begin(context, parent, kind, name.into())
    }

    /// Passes a span that has ended to the queue. If the queue is full, the span is dropped.
    fn send(&self, span: span::Ended) {
        self.0.processor.on_end(span.data(&self.0.scope));
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Traces")
    }
}
