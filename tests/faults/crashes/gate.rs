//! A gate between a process and one of its servers.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::header::TRANSFER_ENCODING,
    response::Response,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::JoinHandle,
};

/// What is in the paths and queries of requests for what uploads make, and in no other.
const PREFIX: &str = "kept";

/// Stands between a process and one of its servers, and holds one message to the server back. An answer that the process does not
/// get leaves the servers as the next message that it does not send.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// How many messages pass before one is held back. `None`: all pass.
    left: Mutex<Option<usize>>,
    is_held: Notify,
}

/// A store behind the gate.
struct Gated {
    shared: Arc<Shared>,
    store: String,
    http: reqwest::Client,
}

// === impl Gate ===

impl Gate {
    /// A gate before a store, `127.0.0.1:PORT`. The messages are the requests.
    pub(super) async fn of_store(store: String) -> Self {
        Self::start(async move |listener, shared| {
            let gated = Gated {
                shared,
                store,
                http: reqwest::Client::new(),
            };
            let router = Router::new().fallback(pass).with_state(Arc::new(gated));
            let _ = axum::serve(listener, router).await;
        })
        .await
    }

    /// A gate before Redis, `127.0.0.1:PORT`. A message is what is sent at once.
    pub(super) async fn of_redis(redis: String) -> Self {
        Self::start(async move |listener, shared| {
            while let Ok((client, _)) = listener.accept().await {
                let (redis, shared) = (redis.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let server = TcpStream::connect(redis).await.unwrap();
                    let ((from, mut back), (mut answers, to)) =
                        (client.into_split(), server.into_split());
                    tokio::join!(shared.copy(from, to), copy(&mut answers, &mut back))
                });
            }
        })
        .await
    }

    async fn start<F: Future<Output = ()> + Send>(
        serve: impl FnOnce(TcpListener, Arc<Shared>) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        Self {
            address: listener.local_addr().unwrap(),
            shared,
            task: tokio::spawn(async move { serve(listener, serving).await }),
        }
    }

    /// From now on, this many messages pass.
    pub(super) fn close_after(&self, messages: usize) {
        *self.shared.left.lock().unwrap() = Some(messages);
    }

    /// Waits until a message is held back.
    pub(super) async fn closed(&self) {
        self.shared.is_held.notified().await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Shared ===

impl Shared {
    /// Returns if the message may pass.
    async fn pass(&self) {
        let may_pass = match &mut *self.left.lock().unwrap() {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        };
        if !may_pass {
            self.is_held.notify_one();
            std::future::pending::<()>().await;
        }
    }

    async fn copy(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut message = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut message).await {
            self.pass().await;
            if to.write_all(&message[..length]).await.is_err() {
                return;
            }
        }
    }
}

async fn pass(State(gated): State<Arc<Gated>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let target = head.uri.path_and_query().unwrap().as_str().to_owned();
    if target.contains(PREFIX) {
        gated.shared.pass().await;
    }
    let url = format!("http://{}{target}", gated.store);
    let request = gated.http.request(head.method, url).headers(head.headers);
    let answer = request.body(body).send().await.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(TRANSFER_ENCODING);
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}
