//! Servers that stand in for a store: in front of one, they answer some requests themselves; alone, they answer all.

use std::{
    future::IntoFuture,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderValue, Response, StatusCode,
        header::{DATE, HOST, TRANSFER_ENCODING},
        request::Parts,
    },
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::common;

/// The answer to a request, if the store does not get it.
pub(super) type Answer = fn(&Parts) -> Option<Response<Body>>;

/// What a stand-in does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behaviour {
    pub(super) answer: Answer,
    /// How far its clock is ahead.
    pub(super) ahead: Duration,
    /// Whether the store gets the name of the store instead of that of the stand-in, as behind some proxies.
    pub(super) renames_host: bool,
}

/// A server; it stops when dropped.
#[derive(Debug)]
pub(super) struct StandIn {
    /// Its URL, without a path.
    pub(super) endpoint: String,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: String,
    behaviour: Behaviour,
    http: reqwest::Client,
}

/// An answer of S3 with an error.
pub(super) fn refusal(status: u16, code: &str) -> Response<Body> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    answer(status, body)
}

/// An answer with this body.
pub(super) fn answer(status: u16, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// Accepts TLS with the certificate of the server in `directory`.
pub(super) fn acceptor(directory: &Path) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(directory.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

// === impl Behaviour ===

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            answer: |_| None,
            ahead: Duration::ZERO,
            renames_host: false,
        }
    }
}

// === impl StandIn ===

impl StandIn {
    /// Starts one in front of the store at `store`, `http://127.0.0.1:PORT`.
    pub(super) async fn start(store: &str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            store: store.to_owned(),
            behaviour,
            http: reqwest::Client::new(),
        });
        let router = Router::new().fallback(pass).with_state(shared);
        let serving = axum::serve(listener, router).into_future();
        let task = tokio::spawn(async {
            let _ = serving.await;
        });
        Self { endpoint, task }
    }

    /// Starts one with TLS, which refuses every request. Its certificate, for `localhost` and 127.0.0.1, is made in `directory`.
    pub(super) async fn with_tls(directory: &Path) -> Self {
        common::write_certificates(directory);
        let acceptor = acceptor(directory);
        // Also for another address of this machine, which the certificate does not have.
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let _ = stream.read(&mut [0; 4096]).await;
                    let answer =
                        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self {
            endpoint: format!("https://localhost:{port}"),
            task,
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let behaviour = shared.behaviour;
    let (mut head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    if let Some(answer) = (behaviour.answer)(&head) {
        return answer;
    }
    if behaviour.renames_host {
        head.headers.remove(HOST);
    }
    let path = head.uri.path_and_query().unwrap().as_str();
    let url = format!("{}{path}", shared.store);
    let request = shared.http.request(head.method, url);
    let sent = request.headers(head.headers).body(body).send().await;
    let sent = sent.unwrap();
    let (status, mut headers) = (sent.status(), sent.headers().clone());
    headers.remove(TRANSFER_ENCODING);
    let now = httpdate::fmt_http_date(SystemTime::now() + behaviour.ahead);
    headers.insert(DATE, HeaderValue::from_str(&now).unwrap());
    let mut response = Response::new(Body::from(sent.bytes().await.unwrap()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}
