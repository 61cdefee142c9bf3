//! A store that fails as ordered: requests go through to the real one, but for those that are answered here.

use std::{
    future::IntoFuture,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header::HOST},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// An answer to the next request of that method whose query contains the text.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) method: &'static str,
    pub(crate) query: &'static str,
    pub(crate) status: u16,
    pub(crate) body: &'static str,
    /// How often it is given.
    pub(crate) times: usize,
    /// Whether the request goes to the store all the same, and it is the store's answer that is lost.
    pub(crate) reaches_store: bool,
    /// What is answered so from then on.
    pub(crate) then: Vec<Self>,
}

/// Between clients and a store.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens, without a path.
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: String,
    faults: Mutex<Vec<Fault>>,
    http: reqwest::Client,
}

// === impl Proxy ===

impl Proxy {
    /// Before the store at `store`, `http://127.0.0.1:PORT`.
    pub(crate) async fn start(store: &str, faults: Vec<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            store: store.to_owned(),
            faults: Mutex::new(faults),
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

    /// Faults that nobody has run into.
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
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
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
    // The host is signed.
    assert!(head.headers.contains_key(HOST));
    let url = format!("{}{path}", shared.store);
    let request = shared.http.request(head.method, url);
    let sent = request.headers(head.headers).body(body).send().await;
    let answer = sent.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    instead.unwrap_or(response)
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
