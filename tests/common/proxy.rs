//! A proxy in front of a store that injects faults: it forwards requests, except those that it answers itself.

use std::{
    future::IntoFuture,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{HOST, TRANSFER_ENCODING},
    },
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// An answer to the next request with this method whose query contains the text.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) method: &'static str,
    pub(crate) query: &'static str,
    pub(crate) status: u16,
    pub(crate) body: &'static str,
    /// How many times it is given.
    pub(crate) times: usize,
    /// Whether the request is forwarded to the store nevertheless, and only the store's answer is lost.
    pub(crate) reaches_store: bool,
    /// Faults that begin after the first time.
    pub(crate) then: Vec<Self>,
}

/// A proxy between clients and a store.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Its URL, without a path.
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: String,
    faults: Mutex<Vec<Fault>>,
    drops_names: bool,
    http: reqwest::Client,
}

// === impl Proxy ===

impl Proxy {
    /// Starts one in front of the store at `store`, `http://127.0.0.1:PORT`.
    pub(crate) async fn start(store: &str, faults: Vec<Fault>) -> Self {
        Self::begin(store, faults, false).await
    }

    /// As [`Proxy::start`]. It also drops request headers whose names contain `_` or `.`, as nginx does.
    pub(crate) async fn dropping_names(store: &str, faults: Vec<Fault>) -> Self {
        Self::begin(store, faults, true).await
    }

    async fn begin(store: &str, faults: Vec<Fault>, drops_names: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            store: store.to_owned(),
            faults: Mutex::new(faults),
            drops_names,
            http: reqwest::Client::new(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let serving = axum::serve(listener, router).into_future();
        let task = tokio::spawn(async {
            let _ = serving.await;
        });
        Self {
            endpoint,
            shared,
            task,
        }
    }

    /// The number of faults that have not occurred yet.
    pub(crate) fn left(&self) -> Vec<Fault> {
        self.shared.faults.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    if shared.drops_names {
        head.headers = without_dropped_names(head.headers);
    }
    let query = head.uri.query().unwrap_or_default();
    let fault = shared.fault(head.method.as_str(), query);
    let instead = fault.map(|fault| {
        let status = StatusCode::from_u16(fault.status).unwrap();
        (fault.reaches_store, (status, fault.body).into_response())
    });
    let instead = match instead {
        Some((false, answer)) => return answer,
        other => other.map(|(_, answer)| answer),
    };
    let path = head.uri.path_and_query().unwrap().as_str();
    // The signature covers the host.
    assert!(head.headers.contains_key(HOST));
    let url = format!("{}{path}", shared.store);
    let request = shared.http.request(head.method, url);
    let sent = request.headers(head.headers).body(body).send().await;
    let answer = sent.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    // The body is sent on with its length.
    headers.remove(TRANSFER_ENCODING);
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    instead.unwrap_or(response)
}

fn without_dropped_names(headers: HeaderMap) -> HeaderMap {
    let is_dropped = |name: &HeaderName| name.as_str().contains(['_', '.']);
    // A name of `None` is the one before.
    let mut name = None;
    let named = headers.into_iter().filter_map(|(next, value)| {
        name = next.or_else(|| name.take());
        Some((name.clone()?, value))
    });
    named.filter(|(name, _)| !is_dropped(name)).collect()
}

// === impl Shared ===

impl Shared {
    fn fault(&self, method: &str, query: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let fits = |fault: &Fault| fault.method == method && query.contains(fault.query);
        let index = faults.iter().position(fits)?;
        faults[index].times -= 1;
        let fault = faults[index].clone();
        if fault.times == 0 {
            let met = faults.remove(index);
            faults.extend(met.then);
        }
        Some(fault)
    }
}
