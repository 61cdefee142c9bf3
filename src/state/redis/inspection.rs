//! What Redis says of itself, for the diagnosis of a set-up.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, from_redis_value};
use tokio::time::timeout;

use super::{
    config::{RedisConfig, RedisMode},
    connection::{Connection, Link, is_unauthenticated},
    reach::reach,
};
use crate::{
    seen::{Seen, Unseen},
    unreachable::Unreachable,
};

/// How long one command, or one connection, may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// What stands for the key, and for the channel, of a test in [`COMMANDS`].
const KEY: &str = "{key}";
const CHANNEL: &str = "{channel}";

/// A command for each permission that the adapter needs, but those without which there is no connection. They are run on a text;
/// a command for another type is refused for that, which shows that it is permitted. The first one makes the key, and the
/// last one deletes it.
const COMMANDS: [(&str, &[&str]); 31] = [
    ("set", &["SET", KEY, "", "PX", "60000"]),
    ("get", &["GET", KEY]),
    ("exists", &["EXISTS", KEY]),
    ("getrange", &["GETRANGE", KEY, "0", "0"]),
    ("setrange", &["SETRANGE", KEY, "0", "x"]),
    ("strlen", &["STRLEN", KEY]),
    ("pexpireat", &["PEXPIREAT", KEY, "1", "GT"]),
    ("pexpiretime", &["PEXPIRETIME", KEY]),
    ("hget", &["HGET", KEY, "f"]),
    ("hmget", &["HMGET", KEY, "f"]),
    ("hgetall", &["HGETALL", KEY]),
    ("hset", &["HSET", KEY, "f", "v"]),
    ("hdel", &["HDEL", KEY, "f"]),
    ("hkeys", &["HKEYS", KEY]),
    ("hincrby", &["HINCRBY", KEY, "f", "1"]),
    ("zadd", &["ZADD", KEY, "1", "m"]),
    ("zrange", &["ZRANGE", KEY, "0", "0"]),
    ("zrem", &["ZREM", KEY, "m"]),
    ("zremrangebyscore", &["ZREMRANGEBYSCORE", KEY, "0", "0"]),
    ("zscore", &["ZSCORE", KEY, "m"]),
    ("zcard", &["ZCARD", KEY]),
    ("zcount", &["ZCOUNT", KEY, "0", "0"]),
    ("zlexcount", &["ZLEXCOUNT", KEY, "-", "+"]),
    ("ping", &["PING"]),
    ("info", &["INFO", "server"]),
    ("scan", &["SCAN", "0", "COUNT", "1"]),
    ("time", &["TIME"]),
    ("wait", &["WAIT", "0", "1"]),
    ("script|load", &["SCRIPT", "LOAD", "return 1"]),
    ("publish", &["PUBLISH", CHANNEL, ""]),
    ("del", &["DEL", KEY]),
];

/// A connection to look at the servers with. It writes only a key that it deletes again.
pub(crate) struct Inspection {
    link: Link,
    connection: Connection,
    key_prefix: String,
}

/// Why the servers cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The configuration is invalid.
    Invalid(String),
    /// No server answers at the first address.
    Unreachable(Unreachable),
    /// The server at the first address is of this mode.
    Mode(RedisMode),
    /// The server refuses the user or the password.
    Credentials(String),
    /// The Sentinels do not know the service.
    UnknownService,
    /// The server requires a certificate of the client.
    NeedsCertificate,
    /// Something else.
    Other(String),
}

/// What `INFO` says of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerInfo {
    /// Its address, if it is one of several.
    pub(crate) address: String,
    values: BTreeMap<String, String>,
}

/// What the user may not do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Commands, in the words of the access rules.
    pub(crate) commands: Vec<&'static str>,
    /// Whether the keys with the prefix are not permitted.
    pub(crate) keys: bool,
    /// Whether the channels with the prefix are not permitted.
    pub(crate) channels: bool,
    /// Whether a command had no answer, so that its permission is not known.
    pub(crate) has_unknown: bool,
}

// === impl Inspection ===

impl Inspection {
    /// Connects.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) async fn connect(config: &RedisConfig) -> Result<Self, Problem> {
        config
            .validate()
            .map_err(|invalid| Problem::Invalid(invalid.to_string()))?;
        let link = Link::new(config).map_err(|error| Problem::Invalid(in_words(&error)))?;
        match within(link.connection()).await {
            Ok(connection) => Ok(Self {
                link,
                connection,
                key_prefix: config.key_prefix.clone(),
            }),
            Err(error) => Err(why(config, &error).await),
        }
    }

    /// What each server says of itself.
    pub(crate) async fn servers(&mut self) -> Seen<Vec<ServerInfo>> {
        let info = self.run::<Value>(&["INFO"]).await;
        let info = info.map_err(|error| unseen(&error, "+info"))?;
        Ok(ServerInfo::all(String::new(), &info))
    }

    /// A setting of a server.
    pub(crate) async fn setting(&mut self, name: &str) -> Seen<String> {
        let found: RedisResult<BTreeMap<String, String>> = self.run(&["CONFIG", "GET", name]).await;
        let found = found.map_err(|error| unseen(&error, "+config|get"))?;
        let value = found.into_values().next();
        value.ok_or_else(|| Unseen::never("Redis does not show it"))
    }

    /// The time of a server.
    pub(crate) async fn clock(&mut self) -> Seen<SystemTime> {
        let time = self.run::<(u64, u64)>(&["TIME"]).await;
        let (seconds, micros) = time.map_err(|error| unseen(&error, "+time"))?;
        let since = Duration::from_secs(seconds) + Duration::from_micros(micros);
        Ok(SystemTime::UNIX_EPOCH + since)
    }

    /// Tries what the adapter needs.
    pub(crate) async fn refused(&mut self) -> Refused {
        let mut refused = Refused::default();
        let id = rand::random::<u64>();
        let key = format!("{}doctor:{id:x}", self.key_prefix);
        let channel = format!("{}doctor", self.key_prefix);
        for (name, words) in COMMANDS {
            let words: Vec<&str> = words
                .iter()
                .map(|word| match *word {
                    KEY => &*key,
                    CHANNEL => &*channel,
                    word => word,
                })
                .collect();
            if let Err(error) = self.run::<Value>(&words).await {
                refused.add(name, &error);
            }
        }
        // The id of a script that does not exist is refused, too, but for another reason.
        let script = ["EVALSHA", &"0".repeat(40), "1", &key];
        if let Err(error) = self.run::<Value>(&script).await {
            refused.add("evalsha", &error);
        }
        let subscribed = async { self.link.subscription().await?.subscribe(channel).await };
        if let Err(error) = within(subscribed).await {
            refused.add("subscribe", &error);
        }
        refused
    }

    async fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> RedisResult<T> {
        let mut command = Cmd::new();
        command.arg(words);
        let answer = within(command.query_async::<Value>(&mut self.connection)).await?;
        Ok(from_redis_value(answer)?)
    }
}

/// Waits for an answer, for at most [`TIME_LIMIT`].
async fn within<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let answer = timeout(TIME_LIMIT, answer).await;
    answer.unwrap_or_else(|late| Err(std::io::Error::other(late).into()))
}

fn unseen(error: &RedisError, permission: &'static str) -> Unseen {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            Unseen::without(permission, "the user may not do that (NOPERM)")
        }
        _ => Unseen::never(in_words(error)),
    }
}

/// Why there is no connection, by connections to the first address alone.
async fn why(config: &RedisConfig, error: &RedisError) -> Problem {
    if let Err(problem) = reach(&config.url, config.ca_file.as_deref()).await {
        return Problem::Unreachable(problem);
    }
    if is_unauthenticated(error) {
        return Problem::Credentials(in_words(error));
    }
    if error.kind() == ErrorKind::MasterNameNotFoundBySentinel {
        return Problem::UnknownService;
    }
    if error.to_string().contains("CertificateRequired") {
        return Problem::NeedsCertificate;
    }
    match mode_of(config).await {
        Ok(Some(mode)) if mode != config.mode => Problem::Mode(mode),
        Err(error) if is_unauthenticated(&error) => Problem::Credentials(in_words(&error)),
        _ => Problem::Other(in_words(error)),
    }
}

/// The mode of the server at the first address.
async fn mode_of(config: &RedisConfig) -> RedisResult<Option<RedisMode>> {
    let alone = RedisConfig {
        mode: RedisMode::Single,
        nodes: Vec::new(),
        ..config.clone()
    };
    let link = Link::new(&alone)?;
    let mut inspection = Inspection {
        connection: within(link.connection()).await?,
        link,
        key_prefix: String::new(),
    };
    let servers = inspection.servers().await.unwrap_or_default();
    Ok(servers.first().and_then(ServerInfo::mode))
}

/// An error in one line, without the types of the client.
fn in_words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("Redis answers {code}: {detail}"),
        (Some(code), None) => format!("Redis answers {code}"),
        _ => error.to_string(),
    }
}

// === impl ServerInfo ===

impl ServerInfo {
    /// A server with the text of its `INFO`.
    pub(crate) fn new(address: String, text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
        Self {
            address,
            values: pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    /// The value of a field.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of a field that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }

    /// What the server is.
    pub(crate) fn mode(&self) -> Option<RedisMode> {
        match self.value("redis_mode")? {
            "standalone" => Some(RedisMode::Single),
            "sentinel" => Some(RedisMode::Sentinel),
            "cluster" => Some(RedisMode::Cluster),
            _ => None,
        }
    }

    /// Each server in a reply to `INFO`; a cluster's reply has one text for each node, by its address.
    fn all(address: String, info: &Value) -> Vec<Self> {
        let Value::Map(nodes) = info else {
            let text: String = from_redis_value(info.clone()).unwrap_or_default();
            return vec![Self::new(address, &text)];
        };
        let each = nodes.iter().map(|(address, text)| {
            let address = from_redis_value(address.clone()).unwrap_or_default();
            Self::all(address, text)
        });
        each.flatten().collect()
    }
}

// === impl Refused ===

impl Refused {
    /// Adds a command that failed with this error.
    fn add(&mut self, command: &'static str, error: &RedisError) {
        let detail = error.detail().unwrap_or_default();
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoPerm) => {}
            // Servers check permissions before everything else.
            _ if error.code().is_some() => return,
            _ => {
                self.has_unknown = true;
                return;
            }
        }
        match detail {
            _ if detail.contains("key") && detail.contains("access") => self.keys = true,
            _ if detail.contains("channel") && detail.contains("access") => self.channels = true,
            _ => self.commands.push(command),
        }
    }
}
