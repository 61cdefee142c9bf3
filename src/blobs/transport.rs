//! How requests of both SDKs reach the stores: HTTP/1.1, one request at a time on each connection, with time-outs by
//! progress.
//!
//! A request has no time limit while its bytes move. It times out when no byte has moved for the time that its caller
//! allows. A byte counts as moved when the socket takes it or returns it. The send buffer of the socket is small, so
//! this is soon after the network took the byte before.
//!
//! Requests go through the proxy that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name, except to
//! addresses of this machine and to link-local ones.

mod body;
mod connect;
mod progress;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use hyper::{Request, Response, header::PROXY_AUTHORIZATION};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{CaptureConnection, capture_connection},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, sleep_until, timeout};
use upload_gateway_core::blobs::CONNECT_TIMEOUT;

pub(super) use self::body::Answer;
use self::{
    body::{Sliced, Taken},
    connect::{Connector, Route, SEND_BUFFER, connector},
    progress::Progress,
};
use crate::{authorities::client_config, certificates::PemError};

/// How many bytes of a response that is not read are kept for each download.
const RESPONSE_BUFFER: usize = 128 * 1024;

/// Sends requests to a store. Clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: Client<Connector, Sliced>,
    route: Route,
}

/// How long one request waits for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// For a connection, including its TLS handshake.
    pub(super) connect: Duration,
    /// For the next byte, in either direction. After the last byte of the request was taken, the time that the send
    /// buffer needs at the rate of this request is added.
    pub(super) silence: Duration,
}

/// Why a request has no response, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// No connection in time.
    #[error("there was no connection within {0:?}")]
    NotConnected(Duration),
    /// No byte moved in time.
    #[error("no byte moved for {0:?}")]
    Stalled(Duration),
    /// The connection could not be made, or broke before the response.
    #[error("the request could not be sent, or was not answered")]
    Broken(#[source] hyper_util::client::legacy::Error),
    /// The connection broke within the response.
    #[error("the response is incomplete")]
    Incomplete(#[source] hyper::Error),
}

/// A request that has no response yet.
struct Sending {
    begun: Instant,
    /// The length of its body in bytes.
    length: u64,
    taken: Taken,
    connection: CaptureConnection,
}

// === impl Timeouts ===

impl Timeouts {
    /// The usual time-out for the connection, and this one for silence.
    pub(super) fn silence(silence: Duration) -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            silence,
        }
    }
}

// === impl Transport ===

impl Transport {
    /// A transport without connections. It trusts the authorities of the system and those in `ca_file`, which is read again
    /// when its content changes.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, PemError> {
        let tls = client_config(ca_file)?;
        Ok(Self::with(Route::new(Matcher::from_env(), tls)))
    }

    fn with(route: Route) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(RESPONSE_BUFFER)
            .build(connector(route.clone()));
        Self { client, route }
    }

    /// Sends a request whose body is in memory, and returns the response as soon as its headers have arrived. Each wait
    /// for bytes of the response's body is bounded by `timeouts.silence` too.
    ///
    /// # Errors
    /// [`SendError`], except `Incomplete`.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        timeouts: Timeouts,
    ) -> Result<Response<Answer>, SendError> {
        let length = request.body().len() as u64;
        let mut request = request.map(Sliced::new);
        if let Some(credentials) = self.route.proxy_credentials(request.uri()) {
            request
                .headers_mut()
                .insert(PROXY_AUTHORIZATION, credentials);
        }
        let sending = Sending {
            begun: Instant::now(),
            length,
            taken: request.body().taken(),
            connection: capture_connection(&mut request),
        };
        tokio::select! {
            answer = self.client.request(request) => {
                let answer = answer.map_err(SendError::Broken)?;
                Ok(answer.map(|body| Answer::new(body, timeouts.silence)))
            }
            late = sending.ends_late(timeouts) => Err(late),
        }
    }
}

// === impl SendError ===

impl SendError {
    /// Whether the request timed out, as opposed to having failed.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::NotConnected(_) | Self::Stalled(_))
    }
}

// === impl Sending ===

impl Sending {
    /// Returns when the request has waited for too long.
    async fn ends_late(mut self, timeouts: Timeouts) -> SendError {
        let connected = self.connection.wait_for_connection_metadata();
        if timeout(timeouts.connect, connected).await.is_err() {
            return SendError::NotConnected(timeouts.connect);
        }
        loop {
            // Read each time: if a kept connection was closed, the request is sent again on another one.
            let progress = self.progress();
            let moved = progress.as_ref().map_or(self.begun, Progress::moved);
            let allowed = timeouts.silence + self.drain_time(progress.as_ref());
            let deadline = moved.max(self.begun) + allowed;
            if deadline <= Instant::now() {
                return SendError::Stalled(allowed);
            }
            sleep_until(deadline).await;
        }
    }

    fn progress(&self) -> Option<Progress> {
        let connected = self.connection.connection_metadata();
        connected.as_ref().and_then(Progress::of)
    }

    fn drain_time(&self, progress: Option<&Progress>) -> Duration {
        match progress {
            Some(progress) if self.taken.is_complete() => {
                let took = progress.written().saturating_duration_since(self.begun);
                drain_time(took, self.length)
            }
            _ => Duration::ZERO,
        }
    }
}

/// How long the send buffer takes to drain, at the rate at which the socket took a whole body of `length` bytes.
fn drain_time(took: Duration, length: u64) -> Duration {
    if length == 0 {
        return Duration::ZERO;
    }
    took.mul_f64(SEND_BUFFER.min(length) as f64 / length as f64)
}

#[cfg(test)]
mod tests;
