//! The process: connects the stores, binds the listeners, serves until told to stop, and drains.

mod backends;
mod health;
mod scope;
mod sweeper;

use std::{
    error::Error as StdError,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::TcpListener, sync::watch, time::timeout};
use tonic::{
    service::Routes,
    transport::{Server as GrpcServer, server::TcpIncoming},
};
use upload_gateway_core::{
    clock::Clock,
    gateway::{Gateway, Settings, TokenKey},
    upload::Timestamp,
};

pub use self::backends::{Backends, connect, connect_state, connect_storage};
pub use self::sweeper::sweep_once;
use self::{health::Monitor, scope::scoped, sweeper::Sweeper};
use crate::{
    config::{self, Config, CorsOrigin, Limits, PartDataForm, Rest, ResumeTokenKey},
    grpc::{self, SigningApi, UploadApi},
    proto::v1::{
        signing_service_server::SigningServiceServer, upload_service_server::UploadServiceServer,
    },
    rest,
};

/// How often an idle connection is asked whether it still lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// The largest HTTP/2 frame in bytes, for senders that use it: a preferred chunk in one or two frames costs fewer reads and
/// wake-ups than in 16 of the usual size. Only where the window holds two of them.
const FRAME_SIZE: u32 = 128 * 1024;

/// The least that a receiver may ask for (RFC 9113, section 6.5.2), for windows that are small to save memory: tonic makes
/// room for a whole message behind what the first frame brought of it, so that a stream takes a frame more than its message.
const SMALLEST_FRAME_SIZE: u32 = 16 * 1024;

/// How long a connection has to answer that.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long streams have to end that were told to.
const RESPONSE_GRACE: Duration = Duration::from_secs(5);

/// Why a gateway does not start, or stops.
pub type ServeError = Box<dyn StdError + Send + Sync>;

/// A gateway that is bound to its addresses and ready to run.
#[derive(Debug)]
pub struct Server {
    grpc: TcpListener,
    http: TcpListener,
    gateway: Arc<Gateway>,
    backends: Backends,
    limits: Limits,
    rest: rest::Settings,
    faults: bool,
    sweeper: config::Sweeper,
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
struct SystemClock;

// === impl Server ===

impl Server {
    /// Binds the listeners, then connects the stores.
    ///
    /// # Errors
    /// An address that is taken, or a state store that is out of reach or unfit.
    pub async fn bind(config: &Config) -> Result<Self, ServeError> {
        let bind = |key: &'static str, address: SocketAddr| async move {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| format!("{key}: listen on {address}: {error}"))
        };
        let grpc = bind("grpc_listen", config.grpc_listen).await?;
        let http = bind("http_listen", config.http_listen).await?;
        let mut backends = connect(config).await?;
        if config.faults.enabled {
            tracing::warn!(
                "FAULTS ARE ENABLED: every caller may have calls fail and this process end; for tests only"
            );
            backends = backends.with_faults();
        }
        let gateway = Gateway::new(
            Arc::clone(&backends.state),
            backends.storages.clone(),
            settings(config)?,
            Arc::new(SystemClock),
        );
        let gateway = Arc::new(gateway.await?);
        Ok(Self {
            grpc,
            http,
            gateway,
            backends,
            limits: config.limits.clone(),
            rest: rest_settings(&config.rest)?,
            faults: config.faults.enabled,
            sweeper: config.sweeper.clone(),
        })
    }

    /// Where gRPC is listened for.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where HTTP is listened for.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn http_address(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// One line for each listener, and one for the embedded S3 with its development keys.
    ///
    /// # Errors
    /// The operating system does not tell an address.
    pub fn announcement(&self) -> std::io::Result<Vec<String>> {
        let mut lines = vec![
            format!("grpc listening on http://{}", self.grpc_address()?),
            format!("http listening on http://{}", self.http_address()?),
        ];
        lines.extend(self.backends.embedded_line());
        Ok(lines)
    }

    /// Serves until `shutdown`. Then nothing new begins, and streams go on to the border of their part, for at most the
    /// configured time, and are told to resume elsewhere.
    ///
    /// # Errors
    /// A listener that fails.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let (monitor, health) = Monitor::start(Arc::clone(&self.gateway), reporter).await;
        let (reflection, reflection_alpha) = grpc::reflection()?;
        let (stop, stopped) = watch::channel(false);
        let window = u32::try_from(self.limits.stream_window.0)?;
        let message_size = usize::try_from(self.limits.max_message_size.0)?;
        let uploads = UploadApi::new(Arc::clone(&self.gateway), self.limits.max_message_size.0);
        let uploads = UploadServiceServer::new(uploads).max_decoding_message_size(message_size);
        let signing = SigningApi::new(Arc::clone(&self.gateway));
        let mut services = Routes::new(uploads).add_service(SigningServiceServer::new(signing));
        let mut router = rest::router(Arc::clone(&self.gateway), &self.rest, health);
        if self.faults {
            services = grpc::with_faults(services);
            router = rest::with_faults(router);
        }
        services = scoped(services.into_axum_router()).into();
        router = scoped(router);
        let incoming = TcpIncoming::from(self.grpc).with_nodelay(Some(true));
        let mut grpc = tokio::spawn(
            GrpcServer::builder()
                .initial_stream_window_size(window)
                // One stream that nobody reads must not stop the others of its connection.
                .initial_connection_window_size(window * self.limits.max_concurrent_streams)
                .max_concurrent_streams(self.limits.max_concurrent_streams)
                .max_frame_size(frame_size(window))
                .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
                .add_routes(services)
                .add_service(health_service)
                .add_service(reflection)
                .add_service(reflection_alpha)
                .serve_with_incoming_shutdown(incoming, until(stopped.clone())),
        );
        let http = axum::serve(self.http, router).with_graceful_shutdown(until(stopped));
        let http = tokio::spawn(http.into_future());
        let sweeper = Sweeper::start(Arc::clone(&self.gateway), &self.sweeper);
        tokio::select! {
            () = shutdown => tracing::info!("stop taking calls"),
            ended = &mut grpc => ended??,
        }
        monitor.drain().await;
        self.gateway.drain.begin();
        let swept = sweeper.drain();
        // Every receiver may be gone already.
        let _ = stop.send(true);
        let drain = Duration::from_secs(self.limits.drain_seconds);
        let cut = grpc.abort_handle();
        let mut ended = pin!(async {
            if !grpc.is_finished() {
                grpc.await??;
            }
            http.await??;
            swept.await;
            // Parts of callers that have gone are still on their way.
            self.gateway.streams.ended().await;
            Ok::<(), ServeError>(())
        });
        let mut drained = timeout(drain, ended.as_mut()).await;
        if drained.is_err() {
            self.gateway.drain.end_streams();
            drained = timeout(RESPONSE_GRACE, ended).await;
        }
        match drained {
            Ok(result) => result?,
            Err(_) => {
                cut.abort();
                tracing::warn!("calls still running are cut off");
            }
        }
        self.backends.stop().await;
        Ok(())
    }
}

/// The largest frame that streams of this window are sent, in bytes.
fn frame_size(window: u32) -> u32 {
    if window < 2 * FRAME_SIZE {
        SMALLEST_FRAME_SIZE
    } else {
        FRAME_SIZE
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means stop, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What the gateway itself takes from the configuration; an error for a key of resume tokens that is none.
pub fn settings(config: &Config) -> Result<Settings, ServeError> {
    let limits = &config.limits;
    let token_key = |key: &ResumeTokenKey| {
        let bytes = key.bytes().ok_or("a key of resume tokens is none")?;
        Ok::<_, ServeError>(TokenKey::new(&key.id, &bytes))
    };
    let token_keys = config.resume_tokens.keys.iter().map(token_key);
    Ok(Settings {
        memory_budget: limits.memory_budget.0,
        parts_in_flight: limits.parts_in_flight as usize,
        parts_in_flight_total: limits.parts_in_flight_total as usize,
        simd_md5: limits.simd_md5,
        max_file_size: limits.max_file_size.map(|size| size.0),
        max_message_size: limits.max_message_size.0,
        max_streams: limits.max_streams as usize,
        idle_timeout: Duration::from_secs(limits.idle_timeout_seconds),
        min_rate: limits.min_rate.0,
        min_rate_window: Duration::from_secs(limits.min_rate_seconds),
        store_retry_timeout: Duration::from_secs(limits.store_retry_timeout_seconds),
        commit_lease: Duration::from_secs(limits.commit_lease_seconds),
        upload_expiry: Duration::from_secs(limits.upload_expiry_seconds),
        upload_max_age: Duration::from_secs(limits.upload_max_age_seconds),
        token_keys: token_keys.collect::<Result<_, _>>()?,
    })
}

fn rest_settings(config: &Rest) -> Result<rest::Settings, ServeError> {
    let origins = config.cors_origins.iter().map(CorsOrigin::as_str);
    let origins = if origins.clone().any(|origin| origin == CorsOrigin::ANY) {
        rest::Origins::Any
    } else {
        rest::Origins::Listed(origins.map(str::parse).collect::<Result<_, _>>()?)
    };
    Ok(rest::Settings {
        part_data: match config.part_data {
            PartDataForm::Array => rest::PartDataForm::Array,
            PartDataForm::Map => rest::PartDataForm::Map,
        },
        origins,
    })
}

// === impl SystemClock ===

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
