//! The configuration of the whole process.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::Targets;
use upload_gateway_core::gateway::Settings;

use super::{
    error::ConfigError,
    limits::Limits,
    metrics::Metrics,
    records::Records,
    resume_tokens::ResumeTokens,
    storage::{self, StorageConfig},
    sweeper::Sweeper,
};
use crate::{
    auth::{ApiKeyConfig, ClientCertificateConfig, IssuerConfig},
    connections::{ClientAuth, TlsConfig},
    embedded_s3::EmbeddedS3Config,
    hosts::HostName,
    rest,
    state::redis::{RedisConfig, RedisUrl},
    traces::TracesConfig,
    values::{self, InvalidKey},
};

/// The effective configuration of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listen address for gRPC. Port 0 selects a free port. A host name is resolved when it is read.
    #[serde(deserialize_with = "values::read_listen_address")]
    pub grpc_listen: SocketAddr,
    /// The listen address for HTTP/1.1: health, readiness and the HTTP API. Port 0 selects a free port.
    /// A host name is resolved when it is read.
    #[serde(deserialize_with = "values::read_listen_address")]
    pub http_listen: SocketAddr,
    /// The listen address for operations: measurements, probes and limits, in plain HTTP and without authentication. Not set:
    /// none. Port 0 selects a free port.
    #[serde(deserialize_with = "values::read_optional_listen_address")]
    pub operations_listen: Option<SocketAddr>,
    /// More host names, without ports, that HTTP requests may have in `Host`. With `auth = "none"` the gateway answers only
    /// these, and the names and addresses of this machine: `localhost`, `*.localhost`, 127.0.0.0/8, `[::1]`.
    #[serde(deserialize_with = "values::list")]
    pub http_hosts: Vec<HostName>,
    /// The directory of the embedded state and blob stores.
    pub data_dir: PathBuf,
    /// The Redis that stores the state of uploads. Not set: an embedded database in `data_dir`.
    pub redis_url: Option<RedisUrl>,
    /// A file that contains `redis_url`.
    pub redis_url_file: Option<PathBuf>,
    /// How callers are authenticated.
    pub auth: Auth,
    /// Whether addresses beyond loopback may be plain TCP, because something else encrypts the connections, such as a service
    /// mesh.
    pub allow_plaintext: bool,
    /// Whether gRPC reflection, which describes the API, is open to callers without a credential.
    pub open_reflection: bool,
    /// What the process uses and accepts at most.
    pub limits: Limits,
    /// The clean-up of expired uploads and orphaned sessions.
    pub sweeper: Sweeper,
    /// How long the records of ended uploads are kept.
    pub records: Records,
    /// How the HTTP API answers.
    pub rest: rest::Settings,
    /// How resume tokens are sealed.
    pub resume_tokens: ResumeTokens,
    /// What is logged.
    pub log: Log,
    /// What is measured.
    pub metrics: Metrics,
    /// Which calls are traced.
    pub traces: TracesConfig,
    /// How Redis is used. It has no effect without `redis_url`.
    pub redis: RedisConfig,
    /// The S3 server in the process, which is used if no storage is configured.
    pub embedded: EmbeddedS3Config,
    /// Injected faults, for tests.
    pub faults: Faults,
    /// TLS of both listeners.
    pub tls: TlsConfig,
    /// The issuers whose tokens are accepted.
    pub issuer: Vec<IssuerConfig>,
    /// The API keys that are accepted.
    pub api_key: Vec<ApiKeyConfig>,
    /// The client certificates that are accepted.
    pub client_certificate: Vec<ClientCertificateConfig>,
    /// The stores for files. Empty: the embedded S3.
    pub storage: Vec<StorageConfig>,
}

/// How callers are authenticated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// They are not: credentials are ignored, and listen addresses must be loopback addresses.
    #[default]
    None,
    /// Every call needs a credential, except health checks.
    Required,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
    /// What is logged, a level, and levels of single modules: `info,upload_gateway=debug`.
    pub filter: String,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Injected faults, for tests: every caller can make calls fail, and can end the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Inject the faults that calls ask for in the header `x-upload-gateway-fault`.
    pub enabled: bool,
    /// Confirms that no file matters in this environment. `enabled` requires it.
    pub allow_in_this_environment: bool,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            grpc_listen: loopback(50051),
            http_listen: loopback(8080),
            operations_listen: None,
            http_hosts: Vec::new(),
            data_dir: "./data".into(),
            redis_url: None,
            redis_url_file: None,
            auth: Auth::None,
            allow_plaintext: false,
            open_reflection: false,
            limits: Limits::default(),
            sweeper: Sweeper::default(),
            records: Records::default(),
            rest: rest::Settings::default(),
            resume_tokens: ResumeTokens::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            traces: TracesConfig::default(),
            redis: RedisConfig::default(),
            embedded: EmbeddedS3Config::default(),
            faults: Faults::default(),
            tls: TlsConfig::default(),
            issuer: Vec::new(),
            api_key: Vec::new(),
            client_certificate: Vec::new(),
            storage: Vec::new(),
        }
    }
}

impl Config {
    /// The configuration as TOML, with its secrets redacted.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables and lists of plain values have a TOML form")
    }

    /// The configuration in one line of JSON, with its secrets redacted.
    pub fn to_json(&self) -> String {
        // As TOML, which has no entries for keys that are not set.
        let table = toml::Table::try_from(self).expect("it has a TOML form, see `to_toml`");
        serde_json::to_string(&table).expect("every TOML table has a JSON form")
    }

    /// The storage of uploads that ask for none, unless their tenant has a default of its own. `None`: there is no storage
    /// for all tenants, or only the embedded one.
    pub fn default_storage(&self) -> Option<&StorageConfig> {
        let of_all = self.storage.iter();
        let of_all = of_all.filter(|storage| storage.options.tenants.is_empty());
        let of_all: Vec<&StorageConfig> = of_all.collect();
        match of_all.as_slice() {
            [only] => Some(only),
            several => several
                .iter()
                .copied()
                .find(|storage| storage.options.default),
        }
    }

    /// The settings of the use cases.
    ///
    /// # Errors
    /// A key that seals is invalid.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        Ok(Settings {
            token_keys: self.resume_tokens.token_keys()?,
            record_keys: self.records.record_keys()?,
            ..self.limits.settings(&self.records)
        })
    }

    /// Refuses what cannot work or would not be safe.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_listeners()?;
        self.validate_credentials()?;
        let tables = [
            ("limits", self.limits.validate()),
            ("limits.per_owner", self.limits.per_owner.validate()),
            ("tls", self.tls.validate()),
            ("sweeper", self.sweeper.validate()),
            ("records", self.records.validate()),
            ("log", self.log.validate()),
            ("metrics", self.metrics.validate()),
            ("traces", self.traces.validate()),
            ("redis", self.redis.validate()),
            ("embedded", self.embedded.validate()),
            ("faults", self.faults.validate()),
        ];
        for (table, checked) in tables {
            checked.map_err(|invalid| ConfigError::from(invalid).within(table))?;
        }
        self.resume_tokens.token_keys()?;
        self.records.record_keys()?;
        storage::validate(&self.storage, self.limits.memory_budget)
    }
}

impl Config {
    /// Beyond loopback, callers must be authenticated, and their credentials encrypted.
    fn validate_listeners(&self) -> Result<(), ConfigError> {
        let listeners = [
            ("grpc_listen", self.grpc_listen),
            ("http_listen", self.http_listen),
        ];
        for (key, address) in listeners {
            if address.ip().is_loopback() {
                continue;
            }
            let problem = match self.auth {
                Auth::None => "auth = \"none\" accepts every caller; set auth = \"required\"",
                Auth::Required if !self.tls.is_on() && !self.allow_plaintext => {
                    "credentials would be sent over plain TCP; set tls.cert_file and tls.key_file, or allow_plaintext = true if something else encrypts the connections"
                }
                Auth::Required => continue,
            };
            let problem = format!("{address} is not a loopback address, and {problem}");
            return Err(ConfigError::new(key, problem));
        }
        Ok(())
    }

    fn validate_credentials(&self) -> Result<(), ConfigError> {
        let mut ids = BTreeSet::new();
        for (index, api_key) in self.api_key.iter().enumerate() {
            let path = format!("api_key.{index}");
            let checked = api_key.validate();
            checked.map_err(|invalid| ConfigError::from(invalid).within(&path))?;
            if !ids.insert(&api_key.id) {
                return Err(ConfigError::new(path, "two API keys have this id"));
            }
        }
        let mut names = BTreeSet::new();
        for (index, issuer) in self.issuer.iter().enumerate() {
            let path = format!("issuer.{index}");
            let checked = issuer.validate();
            checked.map_err(|invalid| ConfigError::from(invalid).within(&path))?;
            if !names.insert(&issuer.issuer) {
                return Err(ConfigError::new(path, "two tables have this issuer"));
            }
        }
        for (index, certificate) in self.client_certificate.iter().enumerate() {
            let path = format!("client_certificate.{index}");
            let checked = certificate.validate();
            checked.map_err(|invalid| ConfigError::from(invalid).within(&path))?;
        }
        self.validate_acceptance()
    }

    /// At least one caller must be accepted.
    fn validate_acceptance(&self) -> Result<(), ConfigError> {
        let asks_for_certificates = self.tls.client_auth != ClientAuth::None;
        if !self.client_certificate.is_empty() && !asks_for_certificates {
            let problem = "must be \"optional\" or \"required\" for [[client_certificate]]";
            return Err(ConfigError::new("tls.client_auth", problem));
        }
        let accepts_none =
            self.issuer.is_empty() && self.api_key.is_empty() && self.client_certificate.is_empty();
        if self.auth == Auth::Required && accepts_none {
            let problem = "\"required\" needs a table [[issuer]], [[api_key]] or [[client_certificate]]: otherwise no caller is accepted";
            return Err(ConfigError::new("auth", problem));
        }
        if asks_for_certificates
            && self.tls.client_ca_file.is_none()
            && self.client_certificate.is_empty()
        {
            let problem = "needs client_ca_file, or a table [[client_certificate]]";
            return Err(ConfigError::new("tls.client_auth", problem));
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

impl Log {
    fn validate(&self) -> Result<(), InvalidKey> {
        self.filter
            .parse::<Targets>()
            .map(drop)
            .map_err(|_| {
                InvalidKey::new(
                    "filter",
                    "must be a level (error, warn, info, debug, trace or off), or levels by module: info,upload_gateway=debug",
                )
            })
    }
}

// === impl Faults ===

impl Faults {
    fn validate(self) -> Result<(), InvalidKey> {
        if self.enabled && !self.allow_in_this_environment {
            return Err(InvalidKey::new(
                "enabled",
                "lets every caller end this process, and therefore requires faults.allow_in_this_environment = true",
            ));
        }
        Ok(())
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
