//! Where a configuration comes from, and what is said when it is wrong.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Value},
};
use serde::Serialize;

use super::{Config, FILE_VARIABLE, SERVER_VARIABLE, Secret, StoreConfig};

/// What every variable begins with.
const PREFIX: &str = "UPLOAD_GATEWAY_";

/// Settings of the command line; those given win over everything else.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
pub struct Flags {
    /// The address for gRPC, loopback as long as auth = "none" [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_listen: Option<std::net::SocketAddr>,
    /// The address for HTTP: health, readiness and the REST API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<std::net::SocketAddr>,
    /// The directory of the embedded state and blob stores [default: ./data]
    #[arg(long, value_name = "DIRECTORY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The Redis that keeps the uploads' state [default: an embedded database]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_url: Option<String>,
}

/// A key whose value is refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The key's path, `limits.memory_budget`; empty where the whole file is meant.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// The file or variable it comes from, where that is known.
    pub origin: Option<String>,
}

/// The configuration of this process: `load` with its environment.
///
/// # Errors
/// As [`load`].
pub fn from_process(file: Option<&Path>, flags: &Flags) -> Result<Config, ConfigError> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load(file, variables, flags)
}

/// Puts a configuration together, reads the secrets that are kept in files, and validates it.
///
/// # Errors
/// The first key that is unknown or wrong, with the file or variable it comes from.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Config, ConfigError> {
    let variables: Vec<Variable> = variables.into_iter().filter_map(Variable::parse).collect();
    let mut figment = Figment::new();
    if let Some(file) = file {
        figment = figment.merge(Toml::file_exact(file));
    }
    for variable in variables
        .iter()
        .filter(|variable| variable.storage().is_none())
    {
        figment = figment.merge(Serialized::default(&variable.key, &variable.value));
    }
    figment = set_in_storages(figment, &variables)?.merge(Serialized::defaults(flags));
    let mut config: Config = figment
        .extract_lossy()
        .map_err(|error| ConfigError::extracted(error, &variables))?;
    read_secrets(&mut config)?;
    config
        .validate()
        .map_err(|error| error.given_by(&variables))?;
    Ok(config)
}

/// A variable that sets a key.
struct Variable {
    name: String,
    key: String,
    value: String,
}

/// Lays the variables of single storages over the tables that the file has for them.
fn set_in_storages(figment: Figment, variables: &[Variable]) -> Result<Figment, ConfigError> {
    if variables
        .iter()
        .all(|variable| variable.storage().is_none())
    {
        return Ok(figment);
    }
    let mut tables: Vec<Dict> = figment.extract_inner("storage").unwrap_or_default();
    for variable in variables {
        let Some((id, key)) = variable.storage() else {
            continue;
        };
        let is_named = |table: &Dict| {
            let name = table.get("id").and_then(Value::as_str).unwrap_or_default();
            name.to_ascii_lowercase().replace(['-', '.'], "_") == id
        };
        let Some(table) = tables.iter_mut().find(|table| is_named(table)) else {
            return Err(ConfigError {
                origin: Some(variable.name.clone()),
                ..ConfigError::new(&variable.key, "the file has no storage of that id")
            });
        };
        table.insert(key.to_owned(), Value::from(variable.value.as_str()));
    }
    Ok(figment.merge(Serialized::default("storage", tables)))
}

/// Reads every secret whose `…_file` is given.
fn read_secrets(config: &mut Config) -> Result<(), ConfigError> {
    if let Some(text) = secret_of(
        "redis_url",
        config.redis_url.is_some(),
        &config.redis_url_file,
    )? {
        let url = text.parse();
        config.redis_url =
            Some(url.map_err(|problem: &str| ConfigError::new("redis_url_file", problem))?);
    }
    for key in &mut config.resume_tokens.keys {
        let path = format!("resume_tokens.keys.{}.key", key.id);
        if let Some(text) = secret_of(&path, key.key.is_some(), &key.key_file)? {
            key.key = Some(Secret::from(text.as_str()));
        }
    }
    for storage in &mut config.storage {
        let (key, secret, file) = match &mut storage.store {
            StoreConfig::S3(s3) => (
                "secret_access_key",
                &mut s3.secret_access_key,
                &s3.secret_access_key_file,
            ),
            StoreConfig::Azure(azure) => (
                "account_key",
                &mut azure.account_key,
                &azure.account_key_file,
            ),
        };
        let key = format!("storage.{}.{key}", storage.id);
        if let Some(text) = secret_of(&key, secret.is_some(), file)? {
            *secret = Some(Secret::from(text.as_str()));
        }
    }
    Ok(())
}

/// The text of the file that holds the secret `key`, without the newline at its end.
fn secret_of(
    key: &str,
    given: bool,
    file: &Option<PathBuf>,
) -> Result<Option<String>, ConfigError> {
    let Some(file) = file else { return Ok(None) };
    if given {
        return Err(ConfigError::new(
            key,
            format!("given twice: there is also {key}_file"),
        ));
    }
    let text = fs::read_to_string(file).map_err(|error| {
        ConfigError::new(
            format!("{key}_file"),
            format!("read {}: {error}", file.display()),
        )
    })?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

// === impl Variable ===

impl Variable {
    /// The key that a variable of the environment sets, if it is one of ours.
    fn parse((name, value): (String, String)) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        if name == FILE_VARIABLE || name == SERVER_VARIABLE || is_service_link(rest) {
            return None;
        }
        let key = rest.to_ascii_lowercase().replace("__", ".");
        Some(Self { name, key, value })
    }

    /// The storage, by its id in lower case with underscores, and the key that it sets there.
    fn storage(&self) -> Option<(&str, &str)> {
        self.key.strip_prefix("storage.")?.split_once('.')
    }
}

/// Kubernetes sets `UPLOAD_GATEWAY_SERVICE_HOST`, `UPLOAD_GATEWAY_PORT_50051_TCP`… in every pod beside a Service that is
/// called `upload-gateway`. No key begins like those.
fn is_service_link(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

// === impl ConfigError ===

impl ConfigError {
    /// The value of `key` is refused.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
            origin: None,
        }
    }

    /// Never repeats a value that was found: it may be a secret.
    fn extracted(error: figment::Error, variables: &[Variable]) -> Self {
        let mut path = error.path.clone();
        let problem = match &error.kind {
            Kind::UnknownField(name, expected) => {
                if path.last() != Some(name) {
                    path.push(name.clone());
                }
                match nearest(name, expected) {
                    Some(similar) => format!("unknown key; did you mean `{similar}`?"),
                    None => "unknown key".into(),
                }
            }
            Kind::UnknownVariant(_, expected) => format!("must be one of {}", expected.join(", ")),
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                format!("expected {expected}")
            }
            other => other.to_string(),
        };
        let file = error
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.source.as_ref());
        Self {
            key: path.join("."),
            problem,
            origin: file.map(ToString::to_string),
        }
        .given_by(variables)
    }

    /// Names the variable that set the key, if one did: it wins over the file.
    fn given_by(mut self, variables: &[Variable]) -> Self {
        if let Some(variable) = variables.iter().find(|variable| variable.key == self.key) {
            self.origin = Some(variable.name.clone());
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.problem)?;
        match &self.origin {
            Some(origin) => write!(formatter, " (in {origin})"),
            None => Ok(()),
        }
    }
}

/// The known key that looks most like `name`, if any does.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let closeness = |key: &str| strsim::jaro_winkler(name, key);
    known
        .iter()
        .copied()
        .max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
        .filter(|key| closeness(key) > 0.8)
}
