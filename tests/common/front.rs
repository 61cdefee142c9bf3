//! A server in front of a store: it answers requests itself, or passes them on and changes what it likes.

use std::{future::IntoFuture, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{
        HeaderValue, Response, StatusCode,
        header::{CONNECTION, HOST, TRANSFER_ENCODING},
        request::Parts as Head,
    },
};
use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinHandle};

/// The server; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Front {
    /// Its URL, without a path.
    pub(crate) endpoint: String,
    task: JoinHandle<()>,
}

/// The store behind it.
#[derive(Debug)]
pub(crate) struct Behind {
    /// `http://127.0.0.1:PORT`
    url: String,
    http: reqwest::Client,
}

// === impl Front ===

impl Front {
    /// Starts a server that calls `answer` with `shared`, the head of a request, and its body.
    pub(crate) async fn start<S, A, F>(shared: Arc<S>, answer: A) -> Self
    where
        S: Send + Sync + 'static,
        A: Fn(Arc<S>, Head, Bytes) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Bytes>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            answer(shared, head, body).await.map(Body::from)
        });
        let serving = axum::serve(listener, router).into_future();
        let task = tokio::spawn(async {
            let _ = serving.await;
        });
        Self { endpoint, task }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Behind ===

impl Behind {
    /// The store at `url`, `http://127.0.0.1:PORT`.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            http: reqwest::Client::new(),
        }
    }

    /// What the store answers to the request.
    pub(crate) async fn pass(&self, head: Head, body: Bytes) -> Response<Bytes> {
        // The signature covers the host.
        assert!(head.headers.contains_key(HOST));
        let url = format!("{}{}", self.url, head.uri.path_and_query().unwrap());
        let request = self.http.request(head.method, url);
        let sent = request.headers(head.headers).body(body).send().await;
        let answer = sent.unwrap();
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        // The body is sent on with its length.
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONNECTION);
        let mut response = Response::new(answer.bytes().await.unwrap());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }
}

/// An error as both S3 and Azure answer it.
pub(crate) fn error(status: StatusCode, code: &'static str) -> Response<Bytes> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let code = HeaderValue::from_static(code);
    response.headers_mut().insert("x-ms-error-code", code);
    response
}
