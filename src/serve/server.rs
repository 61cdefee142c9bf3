//! The server: its listeners and its life.

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use upload_gateway_core::gateway::{Gateway, STOPS_INTERVAL};

use super::{
    admission::Places,
    backends::{self, Backends},
    calls::{Calls, Edge},
    clock::SystemClock,
    error::ServeError,
    expiry::Expiry,
    health::Monitor,
    operations::Operations,
    record_key,
    sweeper::Sweeper,
};
use crate::{
    auth::{self, Authentication, Credentials},
    config::{self, Auth, Config, CorsOrigin, HostName, Limits},
    connections::{self, Listener, Protocol, Tls},
    grpc::{self, AdminApi, SigningApi, UploadApi},
    metrics::{Known, Metrics},
    proto::v1::{
        admin_service_server::AdminServiceServer, signing_service_server::SigningServiceServer,
        upload_service_server::UploadServiceServer,
    },
    rest,
    telemetry::LogFilter,
    traces::{self, Traces},
};

/// How long an HTTP/1.1 connection may be idle between two requests: longer than the 60 seconds of usual load balancers, so
/// that they close it, not the gateway.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// The file descriptors besides those of connections from clients: connections to stores and Redis, files of the embedded
/// stores.
const OTHER_DESCRIPTORS: u64 = 2048;

/// How many connections the listener for operations has.
const MAX_OPERATIONS: usize = 64;

/// How long streams have for their final responses when the drain time is over.
const RESPONSE_GRACE: Duration = Duration::from_secs(5);

/// A gateway with bound listeners and connected stores.
#[derive(Debug)]
pub struct Server {
    grpc: TcpListener,
    http: TcpListener,
    operations: Option<TcpListener>,
    metrics: Metrics,
    expiry: Expiry,
    traces: Option<Traces>,
    gateway: Arc<Gateway>,
    backends: Backends,
    limits: Limits,
    rest: rest::Settings,
    authentication: Authentication,
    tls: Option<Tls>,
    http_hosts: Vec<HostName>,
    faults: bool,
    sweeper: config::Sweeper,
    log: Option<LogFilter>,
    /// An operator has asked for the shutdown.
    drain_requested: CancellationToken,
}

/// A listener that accepts connections. Dropping this closes them.
#[derive(Debug)]
struct Serving(JoinHandle<()>);

// === impl Server ===

impl Server {
    /// Binds the listeners, then connects the stores.
    ///
    /// # Errors
    /// An address is in use, or the state store is unsuitable. If Redis is unavailable, the server starts and is not ready.
    pub async fn bind(config: &Config) -> Result<Self, ServeError> {
        let bind = |key: &'static str, address: SocketAddr| async move {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| format!("{key}: listen on {address}: {error}"))
        };
        let grpc = bind("grpc_listen", config.grpc_listen).await?;
        let http = bind("http_listen", config.http_listen).await?;
        let operations = match config.operations_listen {
            Some(address) => Some(bind("operations_listen", address).await?),
            None => None,
        };
        // A port of 0 is a free one, which is known now.
        let bound = Config {
            http_listen: http.local_addr()?,
            ..config.clone()
        };
        let mut backends = backends::begin(&bound).await?;
        if config.faults.enabled {
            tracing::warn!(
                "FAULTS ARE ENABLED: every caller can make calls fail and end this process; for tests only"
            );
            backends = backends.with_faults();
        }
        let metrics = Metrics::new(Known {
            calls: grpc::call_paths()?,
            storages: backends.storages.ids().collect(),
            tenants: &config.metrics.tenants,
            sweep_interval: config.sweeper.interval_or_zero(),
        });
        backends = backends.with_metrics(&metrics);
        let traces = Traces::begin(&config.traces, grpc::call_paths()?)?;
        if traces.is_some() {
            backends = backends.with_traces();
        }
        if config.auth == Auth::None && config.rest.cors_origins.iter().any(CorsOrigin::is_any) {
            tracing::warn!(
                "rest.cors_origins = [\"*\"] with auth = \"none\": every web page in a browser on this machine can list, read and delete all files"
            );
        }
        let authentication = authentication(config)?;
        let client_authorities = config.client_certificate.iter();
        let client_authorities: Vec<_> = client_authorities
            .map(|table| table.ca_file.clone())
            .collect();
        let tls = Tls::new(&config.tls, &client_authorities)?;
        let gateway = Gateway::measured(
            Arc::clone(&backends.state),
            backends.storages.clone(),
            record_key::settings(config)?,
            Arc::new(SystemClock),
            Arc::new(metrics.clone()),
        );
        let gateway = Arc::new(gateway.await?);
        Ok(Self {
            grpc,
            http,
            operations,
            metrics,
            expiry: Expiry::new(config, &authentication),
            traces,
            gateway,
            backends,
            limits: config.limits.clone(),
            rest: config.rest.clone(),
            authentication,
            tls,
            http_hosts: config.http_hosts.clone(),
            faults: config.faults.enabled,
            sweeper: config.sweeper.clone(),
            log: None,
            drain_requested: CancellationToken::new(),
        })
    }

    /// The same server. Operators can change what the process logs.
    #[must_use]
    pub fn with_log(self, log: LogFilter) -> Self {
        Self {
            log: Some(log),
            ..self
        }
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

    /// One line for each listener, and one for the memory that clients can make the process use. With the embedded S3, one for it with its development keys, and one for the demo page.
    ///
    /// # Errors
    /// The operating system cannot report an address.
    pub fn announcement(&self) -> std::io::Result<Vec<String>> {
        let scheme = match self.tls {
            Some(_) => "https",
            None => "http",
        };
        let mut lines = vec![
            format!("grpc listening on {scheme}://{}", self.grpc_address()?),
            format!("http listening on {scheme}://{}", self.http_address()?),
        ];
        if let Some(operations) = &self.operations {
            let address = operations.local_addr()?;
            lines.push(format!("operations listening on http://{address}"));
        }
        lines.push(self.limits.memory_line());
        if let Some(embedded) = self.backends.embedded_line() {
            let http = self.http_address()?;
            lines.push(format!("demo page at {scheme}://{http}{}", rest::DEMO));
            // The last one, because `demo` reads no further.
            lines.push(embedded);
        }
        Ok(lines)
    }

    /// Serves until `shutdown`, then drains: the server accepts no new calls, and each stream continues to the end of its
    /// part, for at most the configured time, and ends with an error that makes its client resume elsewhere.
    ///
    /// # Errors
    /// The limits do not fit this machine's types.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let (reporter, grpc_health) = tonic_health::server::health_reporter();
        let (monitor, health) = Monitor::start(Arc::clone(&self.gateway), reporter).await;
        let operations = self.operations(health.clone());
        let grpc_routes = self.grpc_routes()?.add_service(grpc_health);
        let calls = Arc::new(Calls {
            metrics: self.metrics.clone(),
            traces: self.traces.clone(),
            authentication: self.authentication.clone(),
            places: Places::new(&self.limits),
        });
        let grpc_routes = grpc::with_message_limits(grpc_routes.into_axum_router(), &self.gateway);
        let grpc_routes = calls.serve(grpc::with_deadlines(grpc_routes), Edge::Grpc);
        let http_routes = calls.serve(self.http_routes(health), Edge::Http);
        // Outside of all that refuses a call. It answers the requests with which browsers ask first.
        let http_routes = rest::with_pages(http_routes, &self.rest);
        connections::raise_limit(2 * u64::from(self.limits.max_connections) + OTHER_DESCRIPTORS);
        let (stop, stopped) = watch::channel(false);
        let max_connections = self.limits.max_connections as usize;
        let grpc = Listener {
            name: "grpc",
            tcp: self.grpc,
            protocol: Protocol::Http2 {
                stream_window: u32::try_from(self.limits.stream_window.0)?,
                max_concurrent_streams: self.limits.max_concurrent_streams,
            },
            tls: self.tls.clone(),
            max_connections,
        };
        let http = Listener {
            name: "http",
            tcp: self.http,
            protocol: Protocol::Http1 {
                keep_alive: KEEP_ALIVE,
            },
            tls: self.tls,
            max_connections,
        };
        let grpc = Serving::start(grpc.serve(grpc_routes, stopped.clone()));
        let http = Serving::start(http.serve(http_routes, stopped));
        let sweeper = Sweeper::start(&self.gateway, &self.sweeper, &self.metrics);
        let stops = follow_stops(Arc::clone(&self.gateway));
        tokio::select! {
            () = shutdown => {}
            () = self.drain_requested.cancelled() => tracing::info!("an operator drains this replica"),
        }
        tracing::info!("draining: no new calls are accepted");
        monitor.drain().await;
        self.gateway.drain.begin();
        let swept = sweeper.drain();
        stop.send_replace(true);
        let gateway = Arc::clone(&self.gateway);
        let ended = async {
            grpc.ended().await;
            http.ended().await;
            swept.await;
            // Parts of callers that disconnected may still be in flight.
            gateway.streams.ended().await;
        };
        let drain_time = Duration::from_secs(self.limits.drain_seconds);
        if drained(&self.gateway, drain_time, ended).await.is_none() {
            tracing::warn!("the drain time is over: calls that still run are cut off");
        }
        traces::end(self.traces).await;
        drop((operations, stops));
        self.backends.stop().await;
        Ok(())
    }

    /// Starts the listener for operations. It is not stopped before the sender is dropped: it shows how the process drains.
    fn operations(
        &mut self,
        health: watch::Receiver<rest::Health>,
    ) -> Option<(Serving, watch::Sender<bool>)> {
        let listener = for_operations(self.operations.take()?);
        let pages = Operations {
            metrics: self.metrics.clone(),
            gateway: Arc::clone(&self.gateway),
            health,
            expiry: self.expiry.clone(),
            limits: self.limits.clone(),
        };
        let (end, running) = watch::channel(false);
        let serving = Serving::start(listener.serve(pages.router(), running));
        Some((serving, end))
    }

    fn grpc_routes(&self) -> Result<Routes, ServeError> {
        let uploads = UploadApi::new(Arc::clone(&self.gateway), self.features());
        let uploads = UploadServiceServer::new(uploads);
        let signing = SigningApi::new(Arc::clone(&self.gateway));
        let services = Routes::new(uploads).add_service(SigningServiceServer::new(signing));
        let mut services = grpc::with_downloads(services, &self.gateway);
        if self.faults {
            services = grpc::with_faults(services);
        }
        if matches!(self.authentication, Authentication::Required(_)) {
            let (log, drain) = (self.log.clone(), self.drain_requested.clone());
            let admin = AdminApi::new(Arc::clone(&self.gateway), log, drain);
            services = services.add_service(AdminServiceServer::new(admin));
        }
        let (reflection, reflection_alpha) = grpc::reflection()?;
        Ok(services
            .add_service(reflection)
            .add_service(reflection_alpha))
    }

    /// What callers may want to know of this gateway.
    fn features(&self) -> Vec<&'static str> {
        let has_embedded = self.backends.embedded_endpoint().is_some();
        let authenticates = matches!(self.authentication, Authentication::Required(_));
        let features = [
            ("embedded-stores", has_embedded),
            ("authentication", authenticates),
        ];
        let has = features.into_iter().filter(|(_, has)| *has);
        has.map(|(name, _)| name).collect()
    }

    fn http_routes(&self, health: watch::Receiver<rest::Health>) -> axum::Router {
        let mut router = rest::router(Arc::clone(&self.gateway), &self.rest, health);
        if let Some(store) = self.backends.embedded_endpoint() {
            router = rest::with_demo(router, &store);
        }
        if self.faults {
            router = rest::with_faults(router);
        }
        if matches!(self.authentication, Authentication::None) {
            let origins = &self.rest.cors_origins;
            router = rest::without_foreign_pages(router, &self.http_hosts, origins);
        }
        rest::with_one_host(router)
    }
}

/// The listener for operations.
fn for_operations(tcp: TcpListener) -> Listener {
    Listener {
        name: "operations",
        tcp,
        protocol: Protocol::Http1 {
            keep_alive: KEEP_ALIVE,
        },
        tls: None,
        max_connections: MAX_OPERATIONS,
    }
}

fn authentication(config: &Config) -> Result<Authentication, ServeError> {
    Ok(match config.auth {
        Auth::None => Authentication::None,
        Auth::Required => {
            let settings = auth::Settings {
                issuers: &config.issuer,
                api_keys: &config.api_key,
                client_certificates: &config.client_certificate,
                sources: &config.rest.credentials_in,
                is_reflection_open: config.open_reflection,
            };
            Authentication::Required(Arc::new(Credentials::new(settings)?))
        }
    })
}

/// Reads the stops of new uploads again and again, until it is dropped.
fn follow_stops(gateway: Arc<Gateway>) -> Serving {
    Serving::start(async move {
        let mut every = interval(STOPS_INTERVAL);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(error) = gateway.stops.refresh().await {
                tracing::debug!(%error, "the stops of new uploads were not read");
            }
        }
    })
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

// === impl Serving ===

impl Serving {
    fn start(serving: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(serving))
    }

    async fn ended(mut self) {
        if let Err(error) = (&mut self.0).await {
            tracing::error!(%error, "a listener failed");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}
