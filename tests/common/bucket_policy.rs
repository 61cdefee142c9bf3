//! A server in front of a store that refuses what a policy of the bucket or the account would refuse: a new object without
//! certain headers. It remembers them, and says them when the object is described, as the store would.

use std::{
    collections::HashMap,
    future::IntoFuture,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, Response, StatusCode,
        header::{CONNECTION, TRANSFER_ENCODING},
        request::Parts as Head,
    },
};
use tokio::{net::TcpListener, task::JoinHandle};

/// The headers that a request must have, each with the only value that is allowed.
pub type Headers = &'static [(&'static str, &'static str)];

/// What the policy demands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands {
    /// Of requests that name a new object: on S3 PutObject and CreateMultipartUpload, on Azure Put Blob and Put Block List.
    pub object: Headers,
    /// Of Put Block on Azure.
    pub block: Headers,
    /// What it adds to the description of every object.
    pub described: Headers,
    /// Whether it hides the demanded headers from the description of an object, as a store that ignores them does.
    pub forgets: bool,
    /// Whether objects cannot be read: S3 answers InvalidObjectState.
    pub archives: bool,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct BucketPolicy {
    /// Its URL, without a path.
    pub endpoint: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: String,
    demands: Demands,
    /// The demanded headers of new objects, by path.
    placed: Mutex<HashMap<String, Headers>>,
    refused: Mutex<usize>,
    http: reqwest::Client,
}

// === impl BucketPolicy ===

impl BucketPolicy {
    /// Starts one in front of the store at `store`, `http://127.0.0.1:PORT`.
    pub async fn start(store: &str, demands: Demands) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            store: store.to_owned(),
            demands,
            placed: Mutex::default(),
            refused: Mutex::default(),
            http: reqwest::Client::new(),
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
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

    /// How many requests it refused.
    pub fn refused(&self) -> usize {
        *self.shared.refused.lock().unwrap()
    }
}

impl Drop for BucketPolicy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Shared ===

impl Shared {
    /// The headers that this request must have.
    fn demanded(&self, head: &Head) -> Headers {
        let query = head.uri.query().unwrap_or_default();
        let has = |text: &str| query.split('&').any(|pair| pair == text);
        let is_part = query.contains("uploadId=") || has("comp=block");
        let is_change = query.contains("comp=") && !has("comp=blocklist");
        match head.method {
            Method::PUT if has("comp=block") => self.demands.block,
            Method::PUT if !is_part && !is_change => self.demands.object,
            Method::POST if query.split('&').any(|pair| pair.starts_with("uploads")) => {
                self.demands.object
            }
            _ => &[],
        }
    }

    /// Remembers the demanded headers of a new object, and adds them to the description of an object.
    fn describe(&self, head: &Head, demanded: Headers, headers: &mut HeaderMap) {
        let mut placed = self.placed.lock().unwrap();
        let path = head.uri.path();
        if !demanded.is_empty() && !self.demands.forgets {
            placed.insert(path.to_owned(), demanded);
        }
        if head.method == Method::HEAD {
            let placed = placed.get(path).into_iter();
            for (name, value) in placed.copied().chain([self.demands.described]).flatten() {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
    }

    /// Whether the request reads an object.
    fn reads_object(&self, head: &Head) -> bool {
        let query = head.uri.query().unwrap_or_default();
        head.method == Method::GET && !query.contains("list-type") && !query.contains("upload")
    }

    fn refusal(&self) -> Response<Body> {
        *self.refused.lock().unwrap() += 1;
        error(StatusCode::FORBIDDEN, "AccessDenied")
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let demanded = shared.demanded(&head);
    let is_met = |(name, value): &(&str, &str)| {
        head.headers
            .get(*name)
            .and_then(|value| value.to_str().ok())
            == Some(value)
    };
    if !demanded.iter().all(is_met) {
        return shared.refusal();
    }
    if shared.demands.archives && shared.reads_object(&head) {
        return error(StatusCode::FORBIDDEN, "InvalidObjectState");
    }
    let with_query = head.uri.path_and_query().unwrap().as_str();
    let url = format!("{}{with_query}", shared.store);
    let request = shared.http.request(head.method.clone(), url);
    let sent = request.headers(head.headers.clone()).body(body).send();
    let sent = sent.await.unwrap();
    let (status, mut headers) = (sent.status(), sent.headers().clone());
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONNECTION);
    if status.is_success() {
        shared.describe(&head, demanded, &mut headers);
    }
    let mut response = Response::new(Body::from(sent.bytes().await.unwrap()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let code = HeaderValue::from_str(code).unwrap();
    response.headers_mut().insert("x-ms-error-code", code);
    response
}
