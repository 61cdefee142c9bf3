//! What the process is told: defaults, then a TOML file, then `UPLOAD_GATEWAY_…` variables, then flags.
//!
//! A key inside a table takes two underscores in its variable (`limits.parts_in_flight` is
//! `UPLOAD_GATEWAY_LIMITS__PARTS_IN_FLIGHT`), a key of the storage `media` is `UPLOAD_GATEWAY_STORAGE__MEDIA__…`.
//! A key that nobody knows is an error, wherever it comes from. Environment variables are read in this module only.

mod load;
mod rest;
mod resume_tokens;
mod storage;
mod sweeper;
mod values;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use upload_gateway_core::upload::{MIB, PART_SIZE};

pub use self::{
    load::{ConfigError, Flags, from_process, load},
    rest::{PartDataForm, Rest},
    resume_tokens::{ResumeTokenKey, ResumeTokens},
    storage::{AzureStorage, S3Profile, S3Storage, StorageConfig, StoreConfig},
    sweeper::Sweeper,
    values::{ByteSize, CorsOrigin, Endpoint, Secret, SecretUrl},
};

/// The variable that names the server for the client commands.
pub const SERVER_VARIABLE: &str = "UPLOAD_GATEWAY_SERVER";

/// The variable that names the configuration file.
pub const FILE_VARIABLE: &str = "UPLOAD_GATEWAY_CONFIG";

/// The effective configuration of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where gRPC is listened for. Port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// Where HTTP/1.1 is listened for: health, readiness, the REST API. Port 0 takes a free one.
    pub http_listen: SocketAddr,
    /// Where the embedded state and blob stores keep their files.
    pub data_dir: PathBuf,
    /// The Redis that keeps the uploads' state, `redis://` or `rediss://`. None: an embedded database in `data_dir`.
    pub redis_url: Option<SecretUrl>,
    /// A file that holds `redis_url`.
    pub redis_url_file: Option<PathBuf>,
    /// How callers are known.
    pub auth: Auth,
    /// What the process takes at most.
    pub limits: Limits,
    /// How what is left behind is swept up.
    pub sweeper: Sweeper,
    /// How the REST API answers.
    pub rest: Rest,
    /// How resume tokens are sealed.
    pub resume_tokens: ResumeTokens,
    /// What is logged.
    pub log: Log,
    /// How Redis is spoken to.
    pub redis: Redis,
    /// The S3 inside the process, used when no storage is configured.
    pub embedded: Embedded,
    /// Faults on demand, for tests.
    pub faults: Faults,
    /// The stores that files go to. None: the embedded one.
    pub storage: Vec<StorageConfig>,
}

/// How callers are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Not at all: whatever credential a caller sends is ignored, and only loopback addresses may be listened on.
    #[default]
    None,
}

/// What the process takes at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The memory for file bytes, of all streams together.
    pub memory_budget: ByteSize,
    /// The largest gRPC message.
    pub max_message_size: ByteSize,
    /// The largest file. None: what the store takes.
    pub max_file_size: Option<ByteSize>,
    /// How many parts of one upload are on their way to the store at once.
    pub parts_in_flight: u32,
    /// How many parts of all uploads are on their way to one store at once.
    pub parts_in_flight_total: u32,
    /// Whether the MD5s of several parts are computed at the same time with SIMD. Otherwise `md-5` hashes each part.
    pub simd_md5: bool,
    /// How many streams run at once, over all connections.
    pub max_streams: u32,
    /// How many streams one connection carries.
    pub max_concurrent_streams: u32,
    /// The HTTP/2 window of one stream; a connection's is that times `max_concurrent_streams`.
    pub stream_window: ByteSize,
    /// How long a stream may be silent, in seconds.
    pub idle_timeout_seconds: u64,
    /// How many bytes a second a sender must come to while it is waited for. 0: any rate is fine.
    pub min_rate: ByteSize,
    /// Over how much waiting that is averaged, in seconds.
    pub min_rate_seconds: u64,
    /// How long a stream waits for a store or Redis that is away, in seconds.
    pub store_retry_timeout_seconds: u64,
    /// How long a gateway has for a commit before another one may take it over, in seconds.
    pub commit_lease_seconds: u64,
    /// How long an open upload is kept after its last change, in seconds.
    pub upload_expiry_seconds: u64,
    /// How old an open upload may become however much it changes, in seconds; less than 7 days.
    pub upload_max_age_seconds: u64,
    /// How long a shutdown lets running streams come to the end of a part, in seconds; 5 more are for their last words.
    pub drain_seconds: u64,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// What is let through, in the directives of `tracing-subscriber`'s `EnvFilter`: `info,upload_gateway=debug`.
    pub filter: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How Redis is spoken to. Nothing here counts without a `redis_url`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// What `redis_url` is the address of.
    pub mode: RedisMode,
    /// Further sentinels or nodes of the cluster, beside `redis_url`.
    #[serde(deserialize_with = "values::list")]
    pub nodes: Vec<SecretUrl>,
    /// The name of the master that the sentinels watch.
    pub service_name: Option<String>,
    /// What every key begins with, so that deployments can share a Redis.
    pub key_prefix: String,
    /// A PEM file of the authority that signed the server's certificate. None: the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// Start although Redis may evict keys, that is, lose uploads (`maxmemory-policy` is not `noeviction`).
    pub allow_eviction: bool,
    /// How many replicas must have a write before it counts: of the master, in a cluster of the upload's node. 0: none.
    pub wait_replicas: u32,
    /// How long they have for it, in milliseconds; then the state store counts as away.
    pub wait_milliseconds: u64,
}

/// What a Redis URL is the address of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisMode {
    /// One server.
    #[default]
    Single,
    /// A sentinel that knows the server.
    Sentinel,
    /// A node of a cluster.
    Cluster,
}

/// The S3 inside the process. Its keys protect nothing: it listens on loopback only, where the gateway itself asks
/// for no credential either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Embedded {
    /// Where it listens, loopback only. Port 0 takes a free one.
    pub s3_listen: SocketAddr,
    /// Its only bucket.
    pub bucket: String,
    /// The access key id it takes.
    pub access_key_id: String,
    /// The secret that goes with it.
    pub secret_access_key: Secret,
}

/// Faults on demand, for tests: every caller may have calls fail, and the whole process end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Do what calls ask for in the header `x-upload-gateway-fault`.
    pub enabled: bool,
    /// That this is no place where files matter. Nothing is enabled without it.
    pub allow_in_this_environment: bool,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            grpc_listen: loopback(50051),
            http_listen: loopback(8080),
            data_dir: "./data".into(),
            redis_url: None,
            redis_url_file: None,
            auth: Auth::None,
            limits: Limits::default(),
            sweeper: Sweeper::default(),
            rest: Rest::default(),
            resume_tokens: ResumeTokens::default(),
            log: Log::default(),
            redis: Redis::default(),
            embedded: Embedded::default(),
            faults: Faults::default(),
            storage: Vec::new(),
        }
    }
}

impl Config {
    /// The configuration as TOML, secrets redacted.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables and arrays of plain values have a TOML form")
    }

    /// The storage that files go to when none is named. None: the embedded one.
    pub fn default_storage(&self) -> Option<&StorageConfig> {
        match self.storage.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|storage| storage.default),
        }
    }

    /// Refuses what cannot work or would not be safe.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let listeners = [
            ("grpc_listen", self.grpc_listen),
            ("http_listen", self.http_listen),
        ];
        for (key, address) in listeners {
            if self.auth == Auth::None && !address.ip().is_loopback() {
                return Err(ConfigError::new(
                    key,
                    format!(
                        "{address} is not a loopback address, and auth = \"none\" lets every caller in"
                    ),
                ));
            }
        }
        if !self.embedded.s3_listen.ip().is_loopback() {
            return Err(ConfigError::new(
                "embedded.s3_listen",
                "the embedded S3 listens on loopback addresses only",
            ));
        }
        self.limits.validate()?;
        self.sweeper.validate()?;
        self.redis.validate()?;
        self.faults.validate()?;
        self.resume_tokens.validate()?;
        if let Err(problem) = EnvFilter::try_new(&self.log.filter) {
            return Err(ConfigError::new("log.filter", problem.to_string()));
        }
        storage::validate(&self.storage, self.limits.memory_budget)
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_budget: ByteSize(256 * MIB),
            max_message_size: ByteSize(4 * MIB),
            max_file_size: None,
            parts_in_flight: 8,
            parts_in_flight_total: 16,
            simd_md5: true,
            max_streams: 1024,
            max_concurrent_streams: 1024,
            stream_window: ByteSize(256 * 1024),
            idle_timeout_seconds: 60,
            min_rate: ByteSize(1024),
            min_rate_seconds: 300,
            store_retry_timeout_seconds: 30,
            commit_lease_seconds: 90,
            upload_expiry_seconds: 24 * 60 * 60,
            upload_max_age_seconds: 6 * 24 * 60 * 60,
            drain_seconds: 20,
        }
    }
}

impl Limits {
    /// The least part that any store may be given is 5 MiB, and a part is at most a quarter of the budget.
    const LEAST_MEMORY_BUDGET: u64 = 4 * PART_SIZE;

    /// Room for the chunk of 256 KiB that clients are told to prefer, and its frame.
    const MESSAGE_SIZES: RangeInclusive<u64> = 512 * 1024..=64 * MIB;

    /// HTTP/2's initial window at the least (RFC 9113, 6.9.2).
    const STREAM_WINDOWS: RangeInclusive<u64> = 65_535..=64 * MIB;

    /// HTTP/2's largest window (RFC 9113, 6.9.1).
    const LARGEST_WINDOW: u64 = (1 << 31) - 1;

    /// A year: more is a slip of the pen, and would overflow times.
    const LONGEST_SECONDS: u64 = 365 * 24 * 60 * 60;

    /// After a week Azure forgets uncommitted blocks, R2 ends multipart uploads, and the longest signature ends.
    const STORES_FORGET_SECONDS: u64 = 7 * 24 * 60 * 60;

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse =
            |key: &str, problem: String| Err(ConfigError::new(format!("limits.{key}"), problem));
        let counts = [
            ("parts_in_flight", self.parts_in_flight),
            ("parts_in_flight_total", self.parts_in_flight_total),
            ("max_streams", self.max_streams),
            ("max_concurrent_streams", self.max_concurrent_streams),
        ];
        for (key, count) in counts {
            if count == 0 {
                return refuse(key, "must be at least 1".into());
            }
        }
        let times = [
            ("idle_timeout_seconds", self.idle_timeout_seconds),
            ("min_rate_seconds", self.min_rate_seconds),
            (
                "store_retry_timeout_seconds",
                self.store_retry_timeout_seconds,
            ),
            ("commit_lease_seconds", self.commit_lease_seconds),
            ("upload_expiry_seconds", self.upload_expiry_seconds),
            ("upload_max_age_seconds", self.upload_max_age_seconds),
            ("drain_seconds", self.drain_seconds),
        ];
        for (key, seconds) in times {
            if !(1..=Self::LONGEST_SECONDS).contains(&seconds) {
                return refuse(key, "must be between 1 second and a year".into());
            }
        }
        if self.commit_lease_seconds <= self.store_retry_timeout_seconds {
            return refuse(
                "commit_lease_seconds",
                "must be longer than store_retry_timeout_seconds, for which a committer may hold on"
                    .into(),
            );
        }
        if self.upload_max_age_seconds >= Self::STORES_FORGET_SECONDS {
            return refuse(
                "upload_max_age_seconds",
                "must be less than 7 days: stores forget parts, and signatures end, after that time".into(),
            );
        }
        if self.memory_budget.0 < Self::LEAST_MEMORY_BUDGET {
            let least = ByteSize(Self::LEAST_MEMORY_BUDGET);
            return refuse("memory_budget", format!("must be at least {least}"));
        }
        if !Self::MESSAGE_SIZES.contains(&self.max_message_size.0) {
            return refuse(
                "max_message_size",
                "must be between 512KiB and 64MiB".into(),
            );
        }
        if !Self::STREAM_WINDOWS.contains(&self.stream_window.0) {
            return refuse("stream_window", "must be between 65535 and 64MiB".into());
        }
        if self.stream_window.0 * u64::from(self.max_concurrent_streams) > Self::LARGEST_WINDOW {
            return refuse(
                "stream_window",
                "times max_concurrent_streams must stay below 2GiB, the largest window of a connection".into(),
            );
        }
        if self.max_file_size == Some(ByteSize(0)) {
            return refuse("max_file_size", "must be at least 1".into());
        }
        Ok(())
    }
}

// === impl Log ===

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".into(),
        }
    }
}

// === impl Redis ===

impl Default for Redis {
    fn default() -> Self {
        Self {
            mode: RedisMode::Single,
            nodes: Vec::new(),
            service_name: None,
            key_prefix: "upload-gateway".into(),
            ca_file: None,
            allow_eviction: false,
            wait_replicas: 0,
            wait_milliseconds: 500,
        }
    }
}

impl Redis {
    /// Redis takes 0 for ever, and a call is given up after 2 s.
    const WAITS: RangeInclusive<u64> = 1..=1_000;

    fn validate(&self) -> Result<(), ConfigError> {
        if self.mode == RedisMode::Sentinel && self.service_name.is_none() {
            return Err(ConfigError::new(
                "redis.service_name",
                "sentinels must be told the name of the master they watch",
            ));
        }
        if self.mode == RedisMode::Single && !self.nodes.is_empty() {
            return Err(ConfigError::new(
                "redis.nodes",
                "mode = \"single\" has no further nodes",
            ));
        }
        if self.key_prefix.contains(['{', '}']) {
            return Err(ConfigError::new(
                "redis.key_prefix",
                "must not contain braces, which choose the slot of a cluster",
            ));
        }
        if !Self::WAITS.contains(&self.wait_milliseconds) {
            return Err(ConfigError::new(
                "redis.wait_milliseconds",
                "must be between 1 and 1000",
            ));
        }
        Ok(())
    }
}

// === impl Faults ===

impl Faults {
    fn validate(self) -> Result<(), ConfigError> {
        if self.enabled && !self.allow_in_this_environment {
            return Err(ConfigError::new(
                "faults.enabled",
                "lets every caller end this process; where that is wanted, faults.allow_in_this_environment says so, too",
            ));
        }
        Ok(())
    }
}

// === impl Embedded ===

impl Default for Embedded {
    fn default() -> Self {
        Self {
            s3_listen: loopback(0),
            bucket: "uploads".into(),
            access_key_id: "upload-gateway".into(),
            secret_access_key: Secret::from("for-development-only"),
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
