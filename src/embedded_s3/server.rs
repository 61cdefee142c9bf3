//! HTTP/1.1 on the listener, with limits for connections, idle time and shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use s3s::HttpError;
use s3s::service::S3Service;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::{Layer, service_fn};

use super::drain;
use crate::connections::{EndCall, Listener, Protocol};
use crate::cors::{self, CorsOrigin};
use crate::room::{Room, Rules, SentBody};

/// How many connections are served at once. Each holds less than 1 MiB.
const MAXIMUM_CONNECTIONS: u32 = 1024;
/// How long a connection may stay idle. Longer than the 90 seconds for which hyper's clients keep an idle connection, so
/// that the client closes it, not the server.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// How long running requests may take to finish after the server was stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads leave a quarter of the connections to uploads. One that the client does not read ends for another one.
const DOWNLOADS: Rules = Rules {
    what: "downloads",
    limit: None,
    total: MAXIMUM_CONNECTIONS / 4 * 3,
    per_owner: u32::MAX,
    reserve: 0,
    wait_limit: Duration::from_millis(500),
    yields_after: Duration::from_secs(5),
    ends_after: Some(Duration::from_secs(5 * 60)),
};

/// The background task that serves. Dropping this aborts it.
#[derive(Debug)]
pub(super) struct Server {
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Calls the service. A read has a place among `downloads` until its client has read the response.
async fn call(
    service: S3Service,
    downloads: Arc<Room>,
    request: Request<Incoming>,
) -> Result<Response<Body>, HttpError> {
    if request.method() != Method::GET {
        return Ok(drain::call(service, request).await?.map(Body::new));
    }
    let end = request.extensions().get().map(EndCall::token);
    let place = downloads.enter(end.unwrap_or_default());
    if place.take(1).await.is_err() {
        return Ok(slow_down());
    }
    let response = drain::call(service, request).await?;
    Ok(response.map(|body| Body::new(SentBody::new(Body::new(body), place))))
}

/// The answer of S3 to a client that should send fewer requests.
fn slow_down() -> Response<Body> {
    let error = "<Error><Code>SlowDown</Code><Message>Too many downloads run at once; retry later.</Message></Error>";
    let mut response = Response::new(Body::from(error));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
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
        let downloads = Room::new(DOWNLOADS);
        let service = service_fn(move |request: Request<Incoming>| {
            call(service.clone(), Arc::clone(&downloads), request)
        });
        let service = cors::layer(origins, methods, [ETAG]).layer(service);
        let listener = Listener {
            name: "embedded S3",
            tcp,
            protocol: Protocol::Http1 {
                keep_alive: KEEP_ALIVE,
            },
            tls: None,
            max_connections: MAXIMUM_CONNECTIONS as usize,
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
