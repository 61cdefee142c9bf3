//! The configuration of the Redis adapter: the table `[redis]`, and the URL of the first server.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use redis::{ClientTlsConfig, TlsCertificates};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use upload_gateway_core::error::Error;
use url::Url;

use crate::{
    certificates,
    values::{self, InvalidKey, REDACTED, Secret},
};

/// Which Redis to use, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// The server (single), a node (cluster), or a Sentinel. Behind Sentinels its user, password and database are those of
    /// the servers. Not a key of the table: it is the top-level key `redis_url`.
    #[serde(skip)]
    pub url: RedisUrl,
    /// The file that the URL was read from. It is read again when a server refuses the credentials. Not a key of the
    /// table: it is the top-level key `redis_url_file`.
    #[serde(skip)]
    pub url_file: Option<PathBuf>,
    /// What the URL is the address of.
    pub mode: RedisMode,
    /// More Sentinels, or more nodes of the cluster.
    #[serde(deserialize_with = "values::list")]
    pub nodes: Vec<RedisUrl>,
    /// The name under which the Sentinels monitor the primary. Required if `mode` is `sentinel`.
    pub service_name: Option<String>,
    /// The user of the Sentinels themselves. Not set: their default user.
    pub sentinel_user: Option<String>,
    /// The password of the Sentinels themselves. Not set: they ask for none.
    pub sentinel_password: Option<Secret>,
    /// A file that contains `sentinel_password`. It is read again when a Sentinel or a server refuses the credentials.
    pub sentinel_password_file: Option<PathBuf>,
    /// The beginning of every key and channel, so that several deployments can share a Redis. Without braces: they would
    /// choose the slot in a cluster. When it is read, a `:` is added to one that ends with a letter or a digit: otherwise
    /// an access rule for the keys of `x` would include those of `x2`.
    #[serde(deserialize_with = "separated")]
    pub key_prefix: String,
    /// A PEM file with the certificate authorities that are trusted for `rediss://`. Not set: those of the system.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that the gateway presents to servers and Sentinels over `rediss://`, and with those
    /// of the authorities between it and the root. Not set: it presents none.
    pub client_cert_file: Option<PathBuf>,
    /// A PEM file with the private key of the first certificate in `client_cert_file`.
    pub client_key_file: Option<PathBuf>,
    /// Start although the server may evict keys (`maxmemory-policy` is not `noeviction`), which loses uploads.
    pub allow_eviction: bool,
    /// How many replicas must have a write before it counts. In a cluster these are replicas of the record's node. With
    /// fewer the call fails as `Unavailable`, although the write is stored. 0: no replica.
    pub wait_replicas: u32,
    /// How long a write waits for these replicas, in milliseconds.
    pub wait_milliseconds: u64,
    /// The time limit of one connection attempt.
    #[serde(skip)]
    pub connect_timeout: Duration,
    /// The time limit of one command.
    #[serde(skip)]
    pub response_timeout: Duration,
    /// The time limit of a call with the connections that it needs. After it the call fails as `Unavailable`.
    #[serde(skip)]
    pub call_timeout: Duration,
}

/// What a Redis URL is the address of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisMode {
    /// One server.
    #[default]
    Single,
    /// A Sentinel, which knows the current primary.
    Sentinel,
    /// A node of a cluster.
    Cluster,
}

/// The URL of a server: `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS. The password is redacted
/// in logs and in a printed configuration.
#[derive(Clone)]
pub struct RedisUrl {
    url: SecretString,
    redacted: String,
    has_password: bool,
}

/// Parameters of a URL that are printed. The password of a Unix socket is one, too.
const PRINTED: [&str; 3] = ["db", "user", "protocol"];

/// Why the state store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration is invalid.
    #[error("the redis configuration is invalid: {0}")]
    Invalid(String),
    /// The server would evict uploads when its memory is full.
    #[error(
        "redis has maxmemory-policy {policy}, which drops uploads when memory is full: set it to noeviction, or allow eviction"
    )]
    Evicts {
        /// The server's setting.
        policy: String,
    },
    /// Redis does not answer, or returns an unexpected answer.
    #[error("cannot use redis")]
    Failed(#[from] Error),
}

// === impl RedisConfig ===

impl Default for RedisConfig {
    /// A single server on this machine.
    fn default() -> Self {
        Self {
            url: RedisUrl::default(),
            url_file: None,
            mode: RedisMode::Single,
            nodes: Vec::new(),
            service_name: None,
            sentinel_user: None,
            sentinel_password: None,
            sentinel_password_file: None,
            key_prefix: "upload-gateway:".into(),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            allow_eviction: false,
            wait_replicas: 0,
            wait_milliseconds: 500,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(500),
            call_timeout: Duration::from_secs(2),
        }
    }
}

impl RedisConfig {
    /// `WAIT` with 0 would wait for ever, and a call must end within its own time limit.
    const WAIT_MILLISECONDS: RangeInclusive<u64> = 1..=1_000;

    /// Checks what the types of the keys leave open, and the PEM files.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub fn validate(&self) -> Result<(), InvalidKey> {
        if self.mode == RedisMode::Sentinel && self.service_name.is_none() {
            return Err(InvalidKey::new(
                "service_name",
                "is required if mode is \"sentinel\": the name under which the sentinels monitor the primary",
            ));
        }
        self.validate_sentinel_credentials()?;
        if self.mode == RedisMode::Single && !self.nodes.is_empty() {
            return Err(InvalidKey::new(
                "nodes",
                "must be empty if mode is \"single\"",
            ));
        }
        if self.key_prefix.contains(['{', '}']) {
            return Err(InvalidKey::new(
                "key_prefix",
                "must not contain braces, which choose the slot in a cluster",
            ));
        }
        if !Self::WAIT_MILLISECONDS.contains(&self.wait_milliseconds) {
            return Err(InvalidKey::new(
                "wait_milliseconds",
                "must be between 1 and 1000",
            ));
        }
        self.certificates().map(drop)
    }

    fn validate_sentinel_credentials(&self) -> Result<(), InvalidKey> {
        let (user, password) = (&self.sentinel_user, &self.sentinel_password);
        let key = match (user, password) {
            (None, None) => return Ok(()),
            (Some(_), None) => {
                return Err(InvalidKey::new(
                    "sentinel_password",
                    "is required with sentinel_user",
                ));
            }
            (Some(_), Some(_)) => "sentinel_user",
            (None, Some(_)) => "sentinel_password",
        };
        if self.mode == RedisMode::Sentinel {
            Ok(())
        } else {
            Err(InvalidKey::new(key, "requires mode = \"sentinel\""))
        }
    }

    /// Reads the PEM files. `None` if no file is configured.
    ///
    /// # Errors
    /// The first key whose file is missing or malformed.
    pub(super) fn certificates(&self) -> Result<Option<TlsCertificates>, InvalidKey> {
        let root_cert = match &self.ca_file {
            None => None,
            Some(path) => {
                let pem = pem_of("ca_file", path)?;
                certificates::authorities(path, &pem).map_err(of_key("ca_file"))?;
                Some(pem)
            }
        };
        let client_tls = match (&self.client_cert_file, &self.client_key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(client_pair(certificate, key)?),
            (Some(_), None) => {
                let problem = "is required with client_cert_file";
                return Err(InvalidKey::new("client_key_file", problem));
            }
            (None, Some(_)) => {
                let problem = "is required with client_key_file";
                return Err(InvalidKey::new("client_cert_file", problem));
            }
        };
        if root_cert.is_none() && client_tls.is_none() {
            return Ok(None);
        }
        Ok(Some(TlsCertificates {
            client_tls,
            root_cert,
        }))
    }

    /// How long a write waits for replicas.
    pub(super) fn wait(&self) -> Duration {
        match self.wait_replicas {
            0 => Duration::ZERO,
            _ => Duration::from_millis(self.wait_milliseconds),
        }
    }
}

fn pem_of(key: &'static str, path: &Path) -> Result<Vec<u8>, InvalidKey> {
    certificates::read(path).map_err(of_key(key))
}

fn of_key<E: fmt::Display>(key: &'static str) -> impl Fn(E) -> InvalidKey {
    move |problem| InvalidKey::new(key, problem.to_string())
}

/// Reads a client certificate and its key.
fn client_pair(certificate: &Path, key: &Path) -> Result<ClientTlsConfig, InvalidKey> {
    let client_cert = pem_of("client_cert_file", certificate)?;
    let client_key = pem_of("client_key_file", key)?;
    let chain = certificates::certificates(certificate, &client_cert)
        .map_err(of_key("client_cert_file"))?;
    let private = certificates::private_key(key, &client_key).map_err(of_key("client_key_file"))?;
    certificates::check_pair(chain, private).map_err(of_key("client_key_file"))?;
    Ok(ClientTlsConfig {
        client_cert,
        client_key,
    })
}

/// Reads a prefix, and adds a separator to it if it ends without one.
fn separated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut prefix = String::deserialize(deserializer)?;
    if prefix.ends_with(char::is_alphanumeric) {
        prefix.push(':');
    }
    Ok(prefix)
}

// === impl RedisUrl ===

impl RedisUrl {
    /// The whole URL with its password.
    pub fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    /// Whether it contains something that is not printed.
    pub fn has_password(&self) -> bool {
        self.has_password
    }
}

impl Default for RedisUrl {
    /// A server on this machine at the usual port.
    fn default() -> Self {
        let url = "redis://127.0.0.1:6379";
        Self {
            url: url.into(),
            redacted: url.into(),
            has_password: false,
        }
    }
}

impl FromStr for RedisUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| "expected a URL such as redis://127.0.0.1:6379")?;
        let is_socket = match url.scheme() {
            "redis" | "rediss" => false,
            "redis+unix" | "unix" => true,
            _ => return Err("expected a URL that begins with redis:// or rediss://"),
        };
        // A password with one of these characters would end at it, and the rest would be printed.
        let database = url.path().trim_start_matches('/');
        let is_database = database.bytes().all(|byte| byte.is_ascii_digit());
        if url.fragment().is_some() || !(is_socket || is_database) {
            return Err(
                "expected only the number of a database after the host; in a password, write / as %2F, ? as %3F and # as %23",
            );
        }
        let redacted = redacted(&url);
        Ok(Self {
            has_password: redacted != url.as_str(),
            url: String::from(url).into(),
            redacted,
        })
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for RedisUrl {}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The errors do not repeat the text, which may contain a password.
        String::deserialize(deserializer)
            .map_err(|_| de::Error::custom("expected a URL in quotes"))?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The URL without its password and the parameters that are not [`PRINTED`].
fn redacted(url: &Url) -> String {
    let text = url.as_str();
    // Replaced in the text: `Url::set_password` would percent-encode the brackets.
    let text = match url.password() {
        Some(password) => text.replacen(&format!(":{password}@"), &format!(":{REDACTED}@"), 1),
        None => text.to_owned(),
    };
    let Some((address, query)) = text.split_once('?') else {
        return text;
    };
    let parameters = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((key, _)) if PRINTED.contains(&key) => parameter.to_owned(),
            Some((key, _)) => format!("{key}={REDACTED}"),
            None => REDACTED.to_owned(),
        });
    format!("{address}?{}", parameters.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_parameters_is_redacted() {
        for (url, shown) in [
            (
                "unix:///run/r.sock?pass=hunter2",
                "unix:///run/r.sock?pass=[redacted]",
            ),
            (
                "redis+unix:///run/r.sock?user=gw&p%61ss=hunter2&db=2",
                "redis+unix:///run/r.sock?user=gw&p%61ss=[redacted]&db=2",
            ),
            ("redis://cache/1?hunter2@", "redis://cache/1?[redacted]"),
        ] {
            let url: RedisUrl = url.parse().unwrap();
            assert_eq!((url.to_string(), url.has_password()), (shown.into(), true));
        }
        let without: RedisUrl = "unix:///run/r.sock?db=2".parse().unwrap();
        assert!(!without.has_password());
    }

    #[test]
    fn a_password_that_ends_the_address_early_is_refused() {
        for url in [
            "redis://user:12#hunter2@cache",
            "redis://user:12/hunter2@cache",
        ] {
            let error = url.parse::<RedisUrl>().unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_redacted() {
        let url: RedisUrl = "rediss://user:p%40ss@cache.example:6380/2".parse().unwrap();
        assert_eq!(url.expose(), "rediss://user:p%40ss@cache.example:6380/2");
        for shown in [
            format!("{url}"),
            format!("{url:?}"),
            serde_json::to_string(&url).unwrap(),
        ] {
            assert!(
                shown.contains("rediss://user:[redacted]@cache.example:6380/2"),
                "{shown}"
            );
        }
    }
}
