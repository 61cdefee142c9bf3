//! A collector of traces, which passes what it receives to the test.

use std::{
    collections::HashMap,
    fs,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Json, Router, extract::State, routing::post};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{programs, server::Server, until};

/// A running collector for one test alone.
#[derive(Debug)]
pub struct Collector {
    /// Its process.
    pub server: Server,
    spans: Spans,
    receiver: JoinHandle<()>,
}

/// A span that a collector has received.
#[derive(Debug, Clone)]
pub struct Span {
    /// The id of its trace, in hexadecimal.
    pub trace: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// The id of its parent; empty if it has none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its attributes, as text.
    pub attributes: HashMap<String, String>,
    /// The ids of the spans that it is linked to.
    pub links: Vec<String>,
    /// The number of its events.
    pub events: usize,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// A collector.
pub async fn collector() -> Option<Collector> {
    let program = programs::find("otelcol")?;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let spans = Spans::default();
    let router = Router::new().route("/v1/traces", post(receive));
    let router = router.with_state(Arc::clone(&spans));
    let receiver = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let server = Server::start(|port, directory| {
        let config = directory.join("otelcol.yaml");
        let text = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
             exporters: {{otlp_http: {{endpoint: 'http://{to}', encoding: json, compression: none, \
             sending_queue: {{enabled: false}}}}}}\n\
             service: {{telemetry: {{metrics: {{level: none}}}}, \
             pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}}}\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(&program);
        command.arg("--config").arg(config);
        command
    });
    Some(Collector {
        server,
        spans,
        receiver,
    })
}

async fn receive(State(spans): State<Spans>, Json(batch): Json<Value>) -> Json<Value> {
    let resources = list(&batch["resourceSpans"]);
    let scopes = resources.flat_map(|resource| list(&resource["scopeSpans"]));
    let received = scopes.flat_map(|scope| list(&scope["spans"]));
    let received: Vec<Span> = received.map(Span::read).collect();
    let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
    spans.extend(received);
    Json(Value::Object(serde_json::Map::new()))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

// === impl Collector ===

impl Collector {
    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }

    /// The spans that it has received so far.
    pub fn spans(&self) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }

    /// Waits until the spans that it has received are `enough`, and returns them.
    pub async fn received(
        &self,
        what: &str,
        enough: impl Fn(&[Span]) -> bool + Send + Sync,
    ) -> Vec<Span> {
        let mut spans = Vec::new();
        until(what, async || {
            spans = self.spans();
            enough(&spans)
        })
        .await;
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

// === impl Span ===

impl Span {
    fn read(span: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attributes = list(&span["attributes"]).map(|attribute| {
            let value = attribute["value"].as_object().unwrap();
            let value = value.values().next().unwrap();
            let value = value.as_str().map_or(value.to_string(), ToOwned::to_owned);
            (text(&attribute["key"]), value)
        });
        let links = list(&span["links"]).map(|link| text(&link["spanId"]));
        Self {
            trace: text(&span["traceId"]),
            id: text(&span["spanId"]),
            parent: text(&span["parentSpanId"]),
            name: text(&span["name"]),
            attributes: attributes.collect(),
            links: links.collect(),
            events: list(&span["events"]).count(),
        }
    }

    /// The value of an attribute; empty if it has none.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}
