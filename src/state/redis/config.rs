//! Where Redis is, how it is spoken to, and why it may be refused.

use std::{fmt, path::PathBuf, time::Duration};

use upload_gateway_core::error::Error;

/// Where Redis is and how it is spoken to.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/database]`, or `rediss://` for TLS. Single: the server. Cluster: some of the
    /// nodes. Sentinel: the Sentinels; user, password and database of the first are those of the servers behind them.
    pub urls: Vec<String>,
    /// What the URLs lead to.
    pub mode: RedisMode,
    /// Begins every key. No braces: they would change where a Cluster puts the key.
    pub key_prefix: String,
    /// A PEM file with the authorities that `rediss://` trusts, instead of the system's.
    pub authority_file: Option<PathBuf>,
    /// Only warn when the server is configured to evict keys, which loses uploads.
    pub allow_eviction: bool,
    /// How many replicas, in a Cluster of the record's node, must have what a script has written to a record before it
    /// counts; with fewer it is `Unavailable`, though written. 0: none, as Redis itself does.
    pub wait_replicas: u32,
    /// How long they have for it.
    pub wait_timeout: Duration,
    /// How long one connection attempt may take.
    pub connect_timeout: Duration,
    /// How long one command may take.
    pub response_timeout: Duration,
    /// How long a call may take altogether, with the connections it needs, before it is given up as unavailable.
    pub call_timeout: Duration,
}

/// What the URLs of a [`RedisConfig`] lead to.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Single,
    /// Sentinels, which know the present primary.
    Sentinel {
        /// The name they know it by.
        service_name: String,
        /// The Sentinels' own password.
        sentinel_password: Option<String>,
    },
    /// Nodes of a Cluster.
    Cluster,
}

/// Why the state store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration is refused.
    #[error("the redis configuration is invalid: {0}")]
    Invalid(String),
    /// The file of trusted authorities cannot be read.
    #[error("cannot read the authority file {}", path.display())]
    AuthorityFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server would forget uploads when its memory is full.
    #[error(
        "redis has maxmemory-policy {policy}, which drops uploads when memory is full: set it to noeviction, or allow eviction"
    )]
    Evicts {
        /// The server's setting.
        policy: String,
    },
    /// Redis does not answer, or not as it should.
    #[error("cannot use redis")]
    Failed(#[from] Error),
}

// === impl RedisConfig ===

impl Default for RedisConfig {
    /// A server on this machine; 500 ms for an answer, 1 s to connect, 2 s of call_timeout.
    fn default() -> Self {
        Self {
            urls: vec!["redis://127.0.0.1:6379".into()],
            mode: RedisMode::Single,
            key_prefix: "upload-gateway:".into(),
            authority_file: None,
            allow_eviction: false,
            wait_replicas: 0,
            wait_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(500),
            call_timeout: Duration::from_secs(2),
        }
    }
}

/// Without the URLs, which may hold a password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RedisConfig")
            .field("mode", &self.mode)
            .field("key_prefix", &self.key_prefix)
            .field("authority_file", &self.authority_file)
            .field("allow_eviction", &self.allow_eviction)
            .field("wait_replicas", &self.wait_replicas)
            .finish_non_exhaustive()
    }
}

/// Without the password.
impl fmt::Debug for RedisMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single => formatter.write_str("Single"),
            Self::Sentinel { service_name, .. } => write!(formatter, "Sentinel({service_name})"),
            Self::Cluster => formatter.write_str("Cluster"),
        }
    }
}
