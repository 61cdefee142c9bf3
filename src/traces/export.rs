//! The way of spans to a collector: a bounded queue, and one thread that sends batches of it.
//!
//! Spans that find the queue full are dropped. So a collector that hangs costs the memory of the queue.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor},
};
use tokio::{runtime::Handle, time::timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::config::TracesConfig;
use crate::certificates;

/// How many spans wait for the collector at most: about 2 MB.
const QUEUE: usize = 2048;

/// How many spans one request has at most.
const BATCH: usize = 512;

/// How long spans wait for others before they are sent together.
const DELAY: Duration = Duration::from_secs(2);

/// How long the collector has for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long the collector has for a batch, with retries. Then the batch is dropped.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces: {0}")]
pub(crate) struct CannotExport(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Sends batches, and logs when that begins to fail and when it works again.
#[derive(Debug)]
struct Sender {
    otlp: Otlp,
    /// For the time limit: batches are sent outside of the runtime.
    runtime: Handle,
    is_failing: AtomicBool,
}

/// The queue of spans, and the thread that sends them. `None`: `config` names no collector. The collector is not contacted
/// before there are spans.
///
/// # Errors
/// A file or a variable of the environment cannot be used.
pub(super) fn processor(config: &TracesConfig) -> Result<Option<BatchSpanProcessor>, CannotExport> {
    let Some(channel) = channel(config)? else {
        return Ok(None);
    };
    let otlp = Otlp::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(EXPORT_LIMIT)
        .build()
        .map_err(|error| CannotExport(error.into()))?;
    let sender = Sender {
        otlp,
        runtime: Handle::current(),
        is_failing: AtomicBool::new(false),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let mut processor = BatchSpanProcessor::builder(sender)
        .with_batch_config(batches)
        .build();
    processor.set_resource(&resource());
    Ok(Some(processor))
}

fn channel(config: &TracesConfig) -> Result<Option<Channel>, CannotExport> {
    let Some(collector) = &config.endpoint else {
        return Ok(None);
    };
    let open = || -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
        let mut endpoint = Endpoint::from_shared(collector.as_str().to_owned())?
            .connect_timeout(CONNECT_LIMIT)
            .timeout(EXPORT_LIMIT);
        if !collector.is_plain() {
            let tls = ClientTlsConfig::new();
            let tls = match &config.ca_file {
                Some(path) => {
                    let pem = certificates::read(path)?;
                    certificates::authorities(path, &pem)?;
                    tls.ca_certificate(Certificate::from_pem(pem))
                }
                None => tls.with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(endpoint.connect_lazy())
    };
    open().map(Some).map_err(CannotExport)
}

/// What the process is. `OTEL_RESOURCE_ATTRIBUTES` adds to it.
fn resource() -> Resource {
    let instance = format!("{:016x}", rand::random::<u64>());
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}

// === impl Sender ===

impl Sender {
    fn log(&self, sent: &OTelSdkResult) {
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        match sent {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "the collector of traces is unavailable; spans are dropped");
            }
            Ok(()) if was_failing => tracing::info!("the collector of traces is available again"),
            _ => {}
        }
    }
}

impl SpanExporter for Sender {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let limited = {
            let _in_runtime = self.runtime.enter();
            timeout(EXPORT_LIMIT, self.otlp.export(batch))
        };
        let sent = limited.await;
        let sent = sent.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_LIMIT)));
        self.log(&sent);
        sent
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(limit)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}
