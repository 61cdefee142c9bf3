//! The connection to Redis: all calls share one, which is replaced when it breaks.
//!
//! A call whose connection fails is repeated once on a new connection; further retries are up to the caller. A
//! connection to a single server, or to the primary that Sentinels name, is replaced after every failure that makes it
//! suspect; Sentinels are then asked for the primary again. A Cluster connection reconnects by itself.

mod commands;

use std::{
    fmt, io,
    path::Path,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisError, RedisResult, RetryMethod, ScriptInvocation, ServerErrorKind,
    TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike, PubSub},
    cluster::ClusterClient,
    from_redis_value, make_extension_error,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::{sync::Mutex, time::timeout};
use upload_gateway_core::error::{Error, Result};

pub(super) use self::commands::Connection;
use self::commands::{on_node, pipelined};
use super::{
    config::{RedisConfig, RedisMode},
    record::{UNKNOWN_FORMAT, refusal},
    scripts::SCRIPTS,
};

/// The shared connection, and how to make it.
pub(super) struct Link {
    /// With the credentials that were read last.
    config: RwLock<RedisConfig>,
    options: AsyncConnectionConfig,
    call_timeout: Duration,
    wait_replicas: u32,
    wait_milliseconds: u64,
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    generation: u64,
    connection: Connection,
}

#[derive(Clone, Copy)]
enum Request<'a> {
    Command(&'a Cmd),
    /// On a node of a cluster.
    On(&'a str, &'a Cmd),
    Script(&'a ScriptInvocation<'a>),
    /// Scripts that only read.
    Reads(&'a [ScriptInvocation<'a>]),
    /// A script whose writes must reach replicas.
    Write(&'a ScriptInvocation<'a>),
}

enum Source {
    Single(Box<Client>),
    Sentinel(Box<SentinelClient>),
    Cluster {
        client: Box<ClusterClient>,
        /// Each node delivers what is published on any node.
        nodes: Vec<Client>,
    },
}

// === impl Link ===

impl Link {
    /// Prepares connections as `config` describes; sends nothing yet.
    pub(super) fn new(config: &RedisConfig) -> RedisResult<Self> {
        Source::new(config)?;
        Ok(Self {
            config: RwLock::new(config.clone()),
            options: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(config.connect_timeout))
                .set_response_timeout(Some(response_timeout(config))),
            call_timeout: config.call_timeout + config.wait(),
            wait_replicas: config.wait_replicas,
            wait_milliseconds: config.wait_milliseconds,
            current: Mutex::new(None),
        })
    }

    /// Runs one command, which must be idempotent.
    ///
    /// # Errors
    /// `StateUnavailable` if Redis is unavailable or refuses the command for now; otherwise `Internal`.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        read(self.answer(Request::Command(command)).await?)
    }

    /// As [`Link::command`], on the node of a cluster with this address.
    pub(super) async fn command_on<T: FromRedisValue>(
        &self,
        node: &str,
        command: &Cmd,
    ) -> Result<T> {
        read(self.answer(Request::On(node, command)).await?)
    }

    /// Runs one script, which must be idempotent. One round trip unless the server lost the script.
    ///
    /// # Errors
    /// As [`Link::command`]; `Internal` with both versions if the script refuses the format of a record.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T> {
        read(self.answer(Request::Script(script)).await?)
    }

    /// As [`Link::script`] for several scripts that only read, in one round trip. The answers are in their order.
    pub(super) async fn scripts<T: FromRedisValue>(
        &self,
        scripts: &[ScriptInvocation<'_>],
    ) -> Result<Vec<T>> {
        if scripts.is_empty() {
            return Ok(Vec::new());
        }
        read(self.answer(Request::Reads(scripts)).await?)
    }

    /// As [`Link::script`], for a script that writes a record: succeeds once the configured number of replicas have the
    /// write.
    pub(super) async fn write<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T> {
        read(self.answer(Request::Write(script)).await?)
    }

    /// A new connection for a subscription.
    pub(super) async fn subscription(&self) -> RedisResult<PubSub> {
        let connecting = async { self.source().await?.subscription().await };
        let connected = timeout(self.call_timeout, connecting).await;
        let connected = connected.unwrap_or_else(|late| Err(io::Error::other(late).into()));
        if connected.as_ref().is_err_and(is_unauthenticated) {
            self.reread_credentials().await;
        }
        connected
    }

    /// A new connection, without scripts.
    pub(super) async fn connection(&self) -> RedisResult<Connection> {
        self.source().await?.connect(&self.options).await
    }

    /// Reads the files with the URL and with the password of the Sentinels again, if they came from files.
    async fn reread_credentials(&self) {
        let mut config = self.config();
        let (url_file, password_file) = (
            config.url_file.clone(),
            config.sentinel_password_file.clone(),
        );
        if let Some(path) = url_file {
            match reread(&path, |text| text.parse()).await {
                Some(url) => config.url = url,
                None => return,
            }
        }
        if let Some(path) = password_file {
            match reread(&path, |text| Ok(text.into())).await {
                Some(password) => config.sentinel_password = Some(password),
                None => return,
            }
        }
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> RedisConfig {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        config.clone()
    }

    /// How to make a connection now, with the PEM files as they are now.
    async fn source(&self) -> RedisResult<Source> {
        let config = self.config();
        let made = tokio::task::spawn_blocking(move || Source::new(&config)).await;
        made.map_err(io::Error::other)?
    }

    /// Makes `request`, and repeats it once if the connection failed: it may have been stale.
    async fn answer(&self, request: Request<'_>) -> Result<Value> {
        let twice = async {
            match self.attempt(request).await {
                Err(failure) if is_temporary(&failure) && is_suspect(&failure) => {
                    if is_unauthenticated(&failure) {
                        self.reread_credentials().await;
                    }
                    tracing::debug!(error = %failure, "repeat a redis command on a new connection");
                    self.attempt(request).await
                }
                answer => answer,
            }
        };
        match timeout(self.call_timeout, twice).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) if failure.code() == Some("OOM") => Err(Error::state_full(failure)),
            Ok(Err(failure)) if is_temporary(&failure) => Err(Error::state_unavailable(failure)),
            Ok(Err(failure)) => Err(match (failure.code(), failure.detail()) {
                (Some(UNKNOWN_FORMAT), Some(detail)) => refusal(detail),
                _ => Error::internal("redis refused a command", failure),
            }),
            Err(late) => Err(Error::state_unavailable(late)),
        }
    }

    async fn attempt(&self, request: Request<'_>) -> RedisResult<Value> {
        let mut current = self.current().await?;
        let answer = match request {
            Request::Command(command) => command.query_async(&mut current.connection).await,
            Request::On(node, command) => on_node(node, command, &mut current.connection).await,
            Request::Script(script) => script.invoke_async(&mut current.connection).await,
            Request::Reads(scripts) => pipelined(scripts, &mut current.connection).await,
            Request::Write(script) => self.written(script, &mut current.connection).await,
        };
        if let Err(failure) = &answer
            && is_suspect(failure)
        {
            self.discard(current.generation).await;
        }
        answer
    }

    /// Runs a script and waits for the replicas. WAIT covers only the writes of its own connection to its own server,
    /// and blocks the connection. A pipeline sends both commands to the same server, in a Cluster to the node of the
    /// script's keys.
    async fn written(
        &self,
        script: &ScriptInvocation<'_>,
        connection: &mut Connection,
    ) -> RedisResult<Value> {
        if self.wait_replicas == 0 {
            return script.invoke_async(connection).await;
        }
        let mut both = redis::pipe();
        both.invoke_script(script)
            .cmd("WAIT")
            .arg(self.wait_replicas)
            .arg(self.wait_milliseconds);
        let mut answers = connection.req_packed_commands(&both, 0, 2).await?;
        if matches!(answers.first(), Some(Value::ServerError(_))) {
            // Outside of a pipeline the client loads a missing script and follows a slot that moved. If the script
            // fails again, that error is the answer; otherwise the pipeline is repeated and writes again.
            script.invoke_async::<Value>(connection).await?;
            answers = connection.req_packed_commands(&both, 0, 2).await?;
        }
        let (answer, reached): (Value, u32) = from_redis_value(Value::Array(answers))?;
        if reached < self.wait_replicas {
            let detail = format!(
                "{reached} replicas have the write, {} must",
                self.wait_replicas
            );
            return Err(make_extension_error("NOREPLICAS".into(), Some(detail)));
        }
        Ok(answer)
    }

    async fn current(&self) -> RedisResult<Current> {
        let mut slot = self.current.lock().await;
        if let Some(current) = &*slot {
            return Ok(current.clone());
        }
        let mut connection = self.connection().await?;
        // Otherwise the first call of each script would take a second round trip after NOSCRIPT.
        for script in SCRIPTS.iter() {
            script.load_async(&mut connection).await?;
        }
        let current = Current {
            generation: rand::random(),
            connection,
        };
        *slot = Some(current.clone());
        Ok(current)
    }

    /// Makes the next attempt connect again, unless another attempt already has.
    async fn discard(&self, generation: u64) {
        let mut slot = self.current.lock().await;
        if matches!(&*slot, Some(Current { generation: known, connection: Connection::Server(_) }) if *known == generation)
        {
            *slot = None;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.config().mode {
            RedisMode::Single => "Link(single server)",
            RedisMode::Sentinel => "Link(sentinel)",
            RedisMode::Cluster => "Link(cluster)",
        })
    }
}

// === impl Source ===

impl Source {
    /// Reads the PEM files.
    fn new(config: &RedisConfig) -> RedisResult<Self> {
        let certificates = config
            .certificates()
            .map_err(|invalid| io::Error::other(format!("redis.{invalid}")))?;
        let nodes: Vec<ConnectionInfo> = [&config.url]
            .into_iter()
            .chain(&config.nodes)
            .map(|url| url.expose().into_connection_info())
            .collect::<RedisResult<_>>()?;
        match config.mode {
            RedisMode::Single => {
                let node = config.url.expose().into_connection_info()?;
                client(node, certificates).map(|client| Self::Single(Box::new(client)))
            }
            RedisMode::Sentinel => sentinel(config, &nodes, certificates)
                .map(|client| Self::Sentinel(Box::new(client))),
            RedisMode::Cluster => {
                let open = |node: &ConnectionInfo| client(node.clone(), certificates.clone());
                let clients = nodes.iter().map(open).collect::<RedisResult<_>>()?;
                let mut builder = ClusterClient::builder(nodes)
                    .connection_timeout(config.connect_timeout)
                    .response_timeout(response_timeout(config))
                    // For slots that moved; the caller retries during outages.
                    .retries(3)
                    .min_retry_wait(10)
                    .max_retry_wait(100);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                Ok(Self::Cluster {
                    client: Box::new(builder.build()?),
                    nodes: clients,
                })
            }
        }
    }

    async fn connect(self, options: &AsyncConnectionConfig) -> RedisResult<Connection> {
        match self {
            Self::Single(client) => client
                .get_multiplexed_async_connection_with_config(options)
                .await
                .map(Connection::Server),
            Self::Sentinel(mut client) => client
                .get_async_connection_with_config(options)
                .await
                .map(Connection::Server),
            Self::Cluster { client, .. } => {
                client.get_async_connection().await.map(Connection::Cluster)
            }
        }
    }

    async fn subscription(self) -> RedisResult<PubSub> {
        match self {
            Self::Single(client) => client.get_async_pubsub().await,
            Self::Sentinel(mut client) => {
                let primary = client.async_get_client().await?;
                primary.get_async_pubsub().await
            }
            Self::Cluster { nodes, .. } => {
                // If this node is down, the next attempt may choose another one.
                let node = &nodes[rand::random_range(0..nodes.len())];
                node.get_async_pubsub().await
            }
        }
    }
}

/// The value in the file at `path`. If it cannot be read, that is logged: the error of the call is reported, too.
async fn reread<T>(path: &Path, parse: fn(&str) -> Result<T, &'static str>) -> Option<T> {
    let read = async {
        let text = tokio::fs::read_to_string(path).await?;
        parse(text.trim_end_matches(['\r', '\n'])).map_err(io::Error::other)
    };
    match read.await {
        Ok(value) => {
            tracing::info!(path = %path.display(), "redis refused the credentials; read them again");
            Some(value)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the credentials of redis again");
            None
        }
    }
}

/// How long one reply may take: calls queue behind those that wait for replicas.
fn response_timeout(config: &RedisConfig) -> Duration {
    config.response_timeout + config.wait()
}

fn client(node: ConnectionInfo, certificates: Option<TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(node, certificates),
        None => Client::open(node),
    }
}

/// A client that asks the Sentinels for the primary. The URLs hold the Sentinels' addresses, and the credentials and
/// the database of the servers that the Sentinels watch.
fn sentinel(
    config: &RedisConfig,
    nodes: &[ConnectionInfo],
    certificates: Option<TlsCertificates>,
) -> RedisResult<SentinelClient> {
    let service_name = config.service_name.as_deref().unwrap_or_default();
    let settings = nodes
        .first()
        .map(|node| node.redis_settings().clone())
        .unwrap_or_default();
    let encrypted = nodes
        .iter()
        .any(|node| matches!(node.addr(), redis::ConnectionAddr::TcpTls { .. }));
    let addresses = nodes.iter().map(|node| node.addr().clone());
    let mut builder =
        SentinelClientBuilder::new(addresses, service_name, SentinelServerType::Master)?
            .set_client_to_redis_db(settings.db());
    if let Some(username) = settings.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = &config.sentinel_user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &config.sentinel_password {
        builder = builder.set_client_to_sentinel_password(password.expose());
    }
    if encrypted {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build()
}

/// Whether a new connection may work when this one does not: it broke, hangs, leads to a former primary, or is not
/// authenticated.
fn is_suspect(failure: &RedisError) -> bool {
    failure.is_io_error()
        || failure.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || is_unauthenticated(failure)
}

/// Whether the server does not accept the credentials, or not any more.
pub(super) fn is_unauthenticated(failure: &RedisError) -> bool {
    failure.kind() == ErrorKind::AuthenticationFailed
        || matches!(failure.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// Whether the same command may succeed later: the server restarts, loads its data, fails over, or is unreachable.
fn is_temporary(failure: &RedisError) -> bool {
    match failure.kind() {
        ErrorKind::Io => !matches!(failure.retry_method(), RetryMethod::NoRetry),
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            // The server restarted between the loading of a script and its call.
            | ServerErrorKind::NoScript,
        )
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel => true,
        // A rotated password: the file with the URL gets the new one soon.
        _ if is_unauthenticated(failure) => true,
        // Too few replicas, a full disk, a long script: operators can fix these without a restart.
        _ => matches!(failure.code(), Some("NOREPLICAS" | "MISCONF" | "BUSY")),
    }
}

fn read<T: FromRedisValue>(answer: Value) -> Result<T> {
    from_redis_value(answer)
        .map_err(|cause| Error::internal("redis returned a reply of an unexpected type", cause))
}
