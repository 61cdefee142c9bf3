//! HTTP/1.1 on the listener, with limits for connections, idle time and shutdown.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::ETAG;
use hyper::server::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use s3s::service::S3Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tower::{Layer, service_fn};
use tower_http::cors::CorsLayer;

use super::drain;
use crate::cors::{self, CorsOrigin};

/// How many connections are served at once; more wait in the listener's queue. Each holds less than 1 MiB.
const MAXIMUM_CONNECTIONS: usize = 512;
/// How long a connection may stay idle or take to send a request's head. Longer than the 90 seconds for which hyper's
/// clients keep an idle connection, so that the client closes it, not the server.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long running requests may take to finish after the server was stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, for example without free file descriptors, instead of a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The background task that serves. Dropping this aborts it.
#[derive(Debug)]
pub(super) struct Server {
    stopping: watch::Sender<()>,
    task: JoinHandle<()>,
}

async fn serve(
    listener: TcpListener,
    service: S3Service,
    cors: CorsLayer,
    mut stopping: watch::Receiver<()>,
) {
    let permits = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            (accepted, permit) = accept => match accepted {
                Ok((stream, _)) => {
                    let connection =
                        serve_connection(stream, service.clone(), cors.clone(), stopping.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        connection.await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stopping.changed() => break,
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, finished).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "abort requests that did not finish in time"
        );
        connections.shutdown().await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    service: S3Service,
    cors: CorsLayer,
    mut stopping: watch::Receiver<()>,
) {
    let service = cors.layer(service_fn(move |request: Request<Incoming>| {
        drain::call(service.clone(), request)
    }));
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set nodelay");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "serve a connection");
    }
}

// === impl Server ===

impl Server {
    pub(super) fn start(listener: TcpListener, service: S3Service, origins: &[CorsOrigin]) -> Self {
        let methods = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ];
        let cors = cors::layer(origins, methods, [ETAG]);
        let (stopping, receiver) = watch::channel(());
        let task = tokio::spawn(serve(listener, service, cors, receiver));
        Self { stopping, task }
    }

    pub(super) async fn stop(mut self) {
        self.stopping.send_replace(());
        if let Err(error) = (&mut self.task).await {
            tracing::warn!(%error, "stop the embedded S3");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
