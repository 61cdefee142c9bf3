//! HTTP/1.1 on the listener, with limits for connections, idle time and shutdown.

use std::time::Duration;

use hyper::header::ETAG;
use hyper::{Method, Request, body::Incoming};
use s3s::service::S3Service;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::{Layer, service_fn};

use super::drain;
use crate::connections::{Listener, Protocol};
use crate::cors::{self, CorsOrigin};

/// How many connections are served at once. Each holds less than 1 MiB.
const MAXIMUM_CONNECTIONS: usize = 512;
/// How long a connection may stay idle. Longer than the 90 seconds for which hyper's clients keep an idle connection, so
/// that the client closes it, not the server.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// How long running requests may take to finish after the server was stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The background task that serves. Dropping this aborts it.
#[derive(Debug)]
pub(super) struct Server {
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

// === impl Server ===

impl Server {
    pub(super) fn start(tcp: TcpListener, service: S3Service, origins: &[CorsOrigin]) -> Self {
        let methods = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ];
        let service =
            service_fn(move |request: Request<Incoming>| drain::call(service.clone(), request));
        let service = cors::layer(origins, methods, [ETAG]).layer(service);
        let listener = Listener {
            name: "embedded S3",
            tcp,
            protocol: Protocol::Http1 {
                keep_alive: KEEP_ALIVE,
            },
            max_connections: MAXIMUM_CONNECTIONS,
        };
        let (stopping, stopped) = watch::channel(false);
        let task = tokio::spawn(listener.serve(service, stopped));
        Self { stopping, task }
    }

    pub(super) async fn stop(mut self) {
        self.stopping.send_replace(true);
        match tokio::time::timeout(STOP_TIMEOUT, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "stop the embedded S3"),
            Err(_) => tracing::warn!("abort requests that did not finish in time"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
