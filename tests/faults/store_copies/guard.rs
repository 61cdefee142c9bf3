//! A server in front of a store that counts what moves bytes, and holds or refuses copies that the store makes by itself.

use std::{
    future::IntoFuture,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderValue, Method, Response, StatusCode,
        header::{CONNECTION, ETAG, TRANSFER_ENCODING},
    },
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// How copies are answered that do not reach the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal {
    /// With this status and code.
    Code(u16, &'static str),
    /// With this status and nothing else.
    Bare(u16),
    /// As a put of an empty body.
    Ignored,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub(super) struct Guard {
    /// Its URL, without a path.
    pub(super) endpoint: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: String,
    refusal: Mutex<Option<(Refusal, usize)>>,
    /// A header of all descriptions of objects.
    described: Mutex<Option<(&'static str, &'static str)>>,
    /// How many copies may still begin.
    allowed: Semaphore,
    waiting: AtomicUsize,
    copied: AtomicUsize,
    refused: AtomicUsize,
    read: AtomicUsize,
    put: AtomicUsize,
    http: reqwest::Client,
}

// === impl Guard ===

impl Guard {
    pub(super) async fn start(store: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            store: store.to_owned(),
            refusal: Mutex::default(),
            described: Mutex::default(),
            allowed: Semaphore::new(1 << 20),
            waiting: AtomicUsize::new(0),
            copied: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            put: AtomicUsize::new(0),
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

    /// Answers the next `times` copies like this.
    pub(super) fn refuse(&self, refusal: Refusal, times: usize) {
        *self.shared.refusal.lock().unwrap() = Some((refusal, times));
    }

    /// Adds a header to the description of each object.
    pub(super) fn describe(&self, name: &'static str, value: &'static str) {
        *self.shared.described.lock().unwrap() = Some((name, value));
    }

    /// Lets only this number of copies begin.
    pub(super) fn allow(&self, copies: usize) {
        self.shared.allowed.forget_permits(usize::MAX);
        self.shared.allowed.add_permits(copies);
    }

    /// Waits until another copy waits than those that are allowed.
    pub(super) async fn holds_one(&self) {
        while self.shared.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// The number of copies that the store made.
    pub(super) fn copied(&self) -> usize {
        self.shared.copied.load(Ordering::SeqCst)
    }

    /// The number of copies that were refused here.
    pub(super) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// How many requests read the bytes of objects, and how many put bytes. Counted again from here.
    pub(super) fn moved(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.swap(0, Ordering::SeqCst);
        (count(&self.shared.read), count(&self.shared.put))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Shared ===

impl Shared {
    /// The next answer to a copy that does not reach the store.
    fn refusal(&self) -> Option<Refusal> {
        let mut refusal = self.refusal.lock().unwrap();
        let (next, left) = refusal.as_mut().filter(|(_, left)| *left > 0)?;
        *left -= 1;
        self.refused.fetch_add(1, Ordering::SeqCst);
        Some(*next)
    }

    async fn may_copy(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.allowed.acquire().await.unwrap().forget();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let has = |name| head.headers.contains_key(name);
    let is_copy = has("x-amz-copy-source") || has("x-ms-copy-source");
    if is_copy {
        if let Some(refusal) = shared.refusal() {
            return refusal.answer();
        }
        shared.may_copy().await;
    }
    let query = head.uri.query().unwrap_or_default();
    let is_list = ["list", "uploadId", "tags"].map(|name| query.contains(name));
    let counted = match head.method {
        _ if is_copy => Some(&shared.copied),
        Method::GET if !is_list.contains(&true) => Some(&shared.read),
        Method::PUT if !body.is_empty() && !query.contains("blocklist") => Some(&shared.put),
        _ => None,
    };
    let url = format!("{}{}", shared.store, head.uri.path_and_query().unwrap());
    let request = shared.http.request(head.method.clone(), url);
    let sent = request.headers(head.headers.clone()).body(body).send();
    let Ok(sent) = sent.await else {
        return Refusal::Bare(502).answer();
    };
    let (status, mut headers) = (sent.status(), sent.headers().clone());
    if let (Some(counted), true) = (counted, status.is_success()) {
        counted.fetch_add(1, Ordering::SeqCst);
    }
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONNECTION);
    if let (Some((name, value)), &Method::HEAD) = (*shared.described.lock().unwrap(), &head.method)
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut response = Response::new(Body::from(sent.bytes().await.unwrap_or_default()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

// === impl Refusal ===

impl Refusal {
    fn answer(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let status = match self {
            Self::Code(status, code) => {
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code></Error>"
                );
                *response.body_mut() = Body::from(body);
                let code = HeaderValue::from_static(code);
                response.headers_mut().insert("x-ms-error-code", code);
                status
            }
            Self::Bare(status) => status,
            Self::Ignored => {
                let etag = HeaderValue::from_static("\"d41d8cd98f00b204e9800998ecf8427e\"");
                response.headers_mut().insert(ETAG, etag);
                200
            }
        };
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }
}
