//! One span, from its begin to its end. It has a few attributes and no events, so it stays small for as long as it lasts.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, StringValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

/// The attribute with the kind of an error.
const ERROR_TYPE: &str = "error.type";

/// A span that has not ended.
#[derive(Debug)]
pub(super) struct Running {
    context: SpanContext,
    parent: SpanId,
    is_parent_remote: bool,
    kind: SpanKind,
    name: Cow<'static, str>,
    started_at: SystemTime,
    begun: Instant,
    attributes: Vec<KeyValue>,
}

/// How what a span is about ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Well.
    Ok,
    /// Before its end, or with an error of the caller. With its kind.
    Left(StringValue),
    /// With an error of this kind.
    Failed(StringValue),
}

/// The kind of what its caller did not wait for.
pub(super) const CANCELLED: &str = "cancelled";

/// A span that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    span: Running,
    took: Duration,
    outcome: Outcome,
    links: Vec<SpanContext>,
}

// === impl Running ===

impl Running {
    /// A span that begins now.
    pub(super) fn begin(
        context: SpanContext,
        parent: &SpanContext,
        kind: SpanKind,
        name: Cow<'static, str>,
    ) -> Self {
        Self {
            context,
            parent: parent.span_id(),
            is_parent_remote: parent.is_remote(),
            kind,
            name,
            started_at: SystemTime::now(),
            begun: Instant::now(),
            attributes: Vec::new(),
        }
    }

    /// The same span, with these attributes, too.
    pub(super) fn with(mut self, attributes: impl IntoIterator<Item = KeyValue>) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// Its place in its trace.
    pub(super) fn context(&self) -> &SpanContext {
        &self.context
    }

    /// The span, which ends now.
    pub(super) fn end(self, outcome: Outcome, links: Vec<SpanContext>) -> Ended {
        Ended {
            took: self.begun.elapsed(),
            span: self,
            outcome,
            links,
        }
    }
}

// === impl Ended ===

impl Ended {
    /// How long it lasted.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// Whether it ended with an error.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    /// The form that is exported.
    pub(super) fn data(self, scope: &InstrumentationScope) -> SpanData {
        let Running {
            context,
            parent,
            is_parent_remote,
            kind,
            name,
            started_at,
            mut attributes,
            ..
        } = self.span;
        let status = match self.outcome {
            Outcome::Ok => Status::Unset,
            Outcome::Left(kind) => {
                attributes.push(KeyValue::new(ERROR_TYPE, kind));
                Status::Unset
            }
            Outcome::Failed(kind) => {
                attributes.push(KeyValue::new(ERROR_TYPE, kind.clone()));
                Status::error(kind.as_str().to_owned())
            }
        };
        let mut links = SpanLinks::default();
        let others = self.links.into_iter();
        links.links = others.map(Link::with_context).collect();
        SpanData {
            span_context: context,
            parent_span_id: parent,
            parent_span_is_remote: is_parent_remote,
            span_kind: kind,
            name,
            start_time: started_at,
            end_time: started_at + self.took,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status,
            instrumentation_scope: scope.clone(),
        }
    }
}
