//! The server: its listeners and its life.

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, time::timeout};
use tonic::{
    service::Routes,
    transport::{
        Server as GrpcServer,
        server::{Router as GrpcRouter, TcpIncoming},
    },
};
use upload_gateway_core::gateway::Gateway;

use super::{
    backends::{Backends, connect},
    clock::SystemClock,
    error::ServeError,
    health::Monitor,
    scope::scoped,
    sweeper::Sweeper,
};
use crate::{
    config::{self, Auth, Config, CorsOrigin, HostName, Limits},
    grpc::{self, SigningApi, UploadApi},
    proto::v1::{
        signing_service_server::SigningServiceServer, upload_service_server::UploadServiceServer,
    },
    rest,
};

/// The interval of HTTP/2 keep-alive pings on a connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// The largest HTTP/2 frame in bytes that the server accepts: a chunk of the preferred size in one or two frames costs fewer
/// reads and wake-ups than in 16 frames of the usual size. Only for windows that hold two of these frames.
const MAX_FRAME_SIZE: u32 = 128 * 1024;

/// The lowest value for that limit (RFC 9113, section 6.5.2), for windows that are small to save memory: tonic reserves room
/// for a whole message after the part of it that the first frame contains, so a stream takes one frame more than its message.
const MIN_FRAME_SIZE: u32 = 16 * 1024;

/// How long a connection has to answer a ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long streams have for their final responses when the drain time is over.
const RESPONSE_GRACE: Duration = Duration::from_secs(5);

/// A gateway with bound listeners and connected stores.
#[derive(Debug)]
pub struct Server {
    grpc: TcpListener,
    http: TcpListener,
    gateway: Arc<Gateway>,
    backends: Backends,
    limits: Limits,
    rest: rest::Settings,
    auth: Auth,
    http_hosts: Vec<HostName>,
    faults: bool,
    sweeper: config::Sweeper,
}

// === impl Server ===

impl Server {
    /// Binds the listeners, then connects the stores.
    ///
    /// # Errors
    /// An address is in use, or the state store is unavailable or unsuitable.
    pub async fn bind(config: &Config) -> Result<Self, ServeError> {
        let bind = |key: &'static str, address: SocketAddr| async move {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| format!("{key}: listen on {address}: {error}"))
        };
        let grpc = bind("grpc_listen", config.grpc_listen).await?;
        let http = bind("http_listen", config.http_listen).await?;
        // A port of 0 is a free one, which is known now.
        let bound = Config {
            http_listen: http.local_addr()?,
            ..config.clone()
        };
        let mut backends = connect(&bound).await?;
        if config.faults.enabled {
            tracing::warn!(
                "FAULTS ARE ENABLED: every caller can make calls fail and end this process; for tests only"
            );
            backends = backends.with_faults();
        }
        if config.auth == Auth::None && config.rest.cors_origins.iter().any(CorsOrigin::is_any) {
            tracing::warn!(
                "rest.cors_origins = [\"*\"] with auth = \"none\": every web page in a browser on this machine can list, read and delete all files"
            );
        }
        let gateway = Gateway::new(
            Arc::clone(&backends.state),
            backends.storages.clone(),
            config.settings()?,
            Arc::new(SystemClock),
        );
        let gateway = Arc::new(gateway.await?);
        Ok(Self {
            grpc,
            http,
            gateway,
            backends,
            limits: config.limits.clone(),
            rest: config.rest.clone(),
            auth: config.auth,
            http_hosts: config.http_hosts.clone(),
            faults: config.faults.enabled,
            sweeper: config.sweeper.clone(),
        })
    }

    /// The bound address for gRPC.
    ///
    /// # Errors
    /// The operating system cannot report it.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// The bound address for HTTP.
    ///
    /// # Errors
    /// The operating system cannot report it.
    pub fn http_address(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// One line for each listener. With the embedded S3, one for it with its development keys, and one for the demo page.
    ///
    /// # Errors
    /// The operating system cannot report an address.
    pub fn announcement(&self) -> std::io::Result<Vec<String>> {
        let mut lines = vec![
            format!("grpc listening on http://{}", self.grpc_address()?),
            format!("http listening on http://{}", self.http_address()?),
        ];
        if let Some(embedded) = self.backends.embedded_line() {
            let http = self.http_address()?;
            lines.push(format!("demo page at http://{http}{}", rest::DEMO));
            // The last one, because `demo` reads no further.
            lines.push(embedded);
        }
        Ok(lines)
    }

    /// Serves until `shutdown`, then drains: the server accepts no new calls, and each stream continues to the end of its
    /// part, for at most the configured time, and ends with an error that makes its client resume elsewhere.
    ///
    /// # Errors
    /// A listener fails.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let (reporter, grpc_health) = tonic_health::server::health_reporter();
        let (monitor, health) = Monitor::start(Arc::clone(&self.gateway), reporter).await;
        let grpc_routes = self.grpc_routes()?.add_service(grpc_health);
        let http_routes = self.http_routes(health);
        let (stop, stopped) = watch::channel(false);
        let incoming = TcpIncoming::from(self.grpc).with_nodelay(Some(true));
        let mut grpc = tokio::spawn(
            grpc_routes.serve_with_incoming_shutdown(incoming, until(stopped.clone())),
        );
        let http = axum::serve(self.http, http_routes).with_graceful_shutdown(until(stopped));
        let http = tokio::spawn(http.into_future());
        let sweeper = Sweeper::start(Arc::clone(&self.gateway), &self.sweeper);
        tokio::select! {
            () = shutdown => tracing::info!("draining: no new calls are accepted"),
            ended = &mut grpc => ended??,
        }
        monitor.drain().await;
        self.gateway.drain.begin();
        let swept = sweeper.drain();
        // It fails only if both servers have stopped already.
        let _ = stop.send(true);
        let cut = grpc.abort_handle();
        let gateway = Arc::clone(&self.gateway);
        let ended = async move {
            if !grpc.is_finished() {
                grpc.await??;
            }
            http.await??;
            swept.await;
            // Parts of callers that disconnected may still be in flight.
            gateway.streams.ended().await;
            Ok::<(), ServeError>(())
        };
        let drain_time = Duration::from_secs(self.limits.drain_seconds);
        match drained(&self.gateway, drain_time, ended).await {
            Some(result) => result?,
            None => {
                cut.abort();
                tracing::warn!("the drain time is over: calls that still run are cut off");
            }
        }
        self.backends.stop().await;
        Ok(())
    }

    fn grpc_routes(&self) -> Result<GrpcRouter, ServeError> {
        let window = u32::try_from(self.limits.stream_window.0)?;
        let message_size = self.gateway.settings.max_message_size;
        let uploads = UploadApi::new(Arc::clone(&self.gateway));
        let uploads = UploadServiceServer::new(uploads)
            .max_decoding_message_size(usize::try_from(message_size)?);
        let signing = SigningApi::new(Arc::clone(&self.gateway));
        let mut services = Routes::new(uploads).add_service(SigningServiceServer::new(signing));
        if self.faults {
            services = grpc::with_faults(services);
        }
        let services = scoped(services.into_axum_router());
        let (reflection, reflection_alpha) = grpc::reflection()?;
        Ok(GrpcServer::builder()
            .initial_stream_window_size(window)
            // A stream that is not read must not stop the other streams of its connection.
            .initial_connection_window_size(window * self.limits.max_concurrent_streams)
            .max_concurrent_streams(self.limits.max_concurrent_streams)
            .max_frame_size(max_frame_size(window))
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(services.into())
            .add_service(reflection)
            .add_service(reflection_alpha))
    }

    fn http_routes(&self, health: watch::Receiver<rest::Health>) -> axum::Router {
        let mut router = rest::router(Arc::clone(&self.gateway), &self.rest, health);
        if let Some(store) = self.backends.embedded_endpoint() {
            router = rest::with_demo(router, &store);
        }
        if self.faults {
            router = rest::with_faults(router);
        }
        match self.auth {
            Auth::None => {
                let origins = &self.rest.cors_origins;
                router = rest::without_foreign_pages(router, &self.http_hosts, origins);
            }
        }
        scoped(router)
    }
}

/// Waits until all calls have `ended`; after the drain time it ends the streams, and waits for their final responses.
/// `None`: some calls still run.
async fn drained<T>(
    gateway: &Gateway,
    drain_time: Duration,
    ended: impl Future<Output = T>,
) -> Option<T> {
    let mut ended = pin!(ended);
    if let Ok(result) = timeout(drain_time, ended.as_mut()).await {
        return Some(result);
    }
    gateway.drain.end_streams();
    timeout(RESPONSE_GRACE, ended).await.ok()
}

/// The largest frame that the server accepts, in bytes, for streams with a window of this size.
fn max_frame_size(window: u32) -> u32 {
    if window < 2 * MAX_FRAME_SIZE {
        MIN_FRAME_SIZE
    } else {
        MAX_FRAME_SIZE
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // If the sender was dropped, the server stops, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
