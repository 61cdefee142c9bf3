//! Merges the sources of a configuration, and reads it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{error::ConfigError, process::Config, reader::read, storage::StorageConfig};
use crate::{cgroup, state::redis::RedisUrl, values::listen_address};

/// The variable that names the server for the client commands.
pub const SERVER_VARIABLE: &str = "UPLOAD_GATEWAY_SERVER";

/// The variable that names the profile of the client commands.
pub const PROFILE_VARIABLE: &str = "UPLOAD_GATEWAY_PROFILE";

/// The variable that names the configuration file.
pub const FILE_VARIABLE: &str = "UPLOAD_GATEWAY_CONFIG";

/// The beginning of every variable.
const PREFIX: &str = "UPLOAD_GATEWAY_";

/// The variable of AWS's own tools that names a file with authorities. It is the default of `ca_file` of S3 storages.
const AWS_CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The key of the storages.
const STORAGE: &str = "storage";

/// The table of the limits.
const LIMITS: &str = "limits";

/// The key of the kind of a storage.
const KIND: &str = "kind";

/// Settings of the command line. They override all other sources.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
pub struct Flags {
    /// The listen address for gRPC; with auth = "none" a loopback address [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub grpc_listen: Option<std::net::SocketAddr>,
    /// The listen address for HTTP: health, readiness and the HTTP API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub http_listen: Option<std::net::SocketAddr>,
    /// The directory of the embedded state and blob stores [default: ./data]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// The Redis that stores the state of uploads, without a password [default: an embedded database]
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
}

/// An environment variable that sets a key.
struct Variable {
    name: String,
    key: String,
    value: String,
    /// Other paths of the same key: a storage is also known by its index and by its exact id.
    aliases: Vec<String>,
}

/// Where the keys of a configuration come from.
struct Origins {
    file: Option<File>,
    variables: Vec<Variable>,
    /// The flags that are set.
    flags: Table,
}

/// A configuration file.
struct File {
    path: PathBuf,
    text: String,
}

/// The configuration of this process: [`load`] with its environment. The limits that are not set fit into the memory of its
/// container.
///
/// # Errors
/// As [`load`], and limits that need more memory than the container has.
pub fn from_process(file: Option<&Path>, flags: &Flags) -> Result<Config, ConfigError> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_within(cgroup::memory_limit(), file, variables, flags)
}

/// Merges the sources, reads the secrets that are stored in files, and validates the result.
///
/// # Errors
/// The first key that is unknown or invalid, and the line of the file, the variable or the flag that it comes from.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Config, ConfigError> {
    load_within(None, file, variables, flags)
}

/// As [`load`], for a process that may use `memory` bytes.
///
/// # Errors
/// As [`load`], and limits that need more memory.
pub fn load_within(
    memory: Option<u64>,
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Config, ConfigError> {
    let file = file.map(File::read).transpose()?;
    let table = file.as_ref().map(File::parse).transpose()?;
    let mut table = table.unwrap_or_default();
    let variables: Vec<_> = variables.into_iter().collect();
    let bundle = variables.iter().find(|(name, _)| name == AWS_CA_BUNDLE);
    let bundle = bundle.map(|(_, path)| path.clone());
    let mut origins = Origins {
        file,
        variables: variables.into_iter().filter_map(Variable::parse).collect(),
        flags: Table::try_from(flags)
            .map_err(|error| ConfigError::new("data_dir", error.to_string()))?,
    };
    flags.refuse_password()?;
    origins.variables.sort_by(|a, b| a.name.cmp(&b.name));
    let names = add_storages(&mut table, &origins.variables);
    for variable in &mut origins.variables {
        let set = variable.set(&mut table, &names);
        set.map_err(|error| ConfigError {
            origin: Some(variable.name.clone()),
            ..error
        })?;
    }
    if let Some(bundle) = bundle.filter(|path| !path.is_empty()) {
        origins
            .variables
            .push(Variable::ca_bundle(&mut table, bundle));
    }
    table.extend(origins.flags.clone());
    read_config(table, memory).map_err(|error| origins.complete(error))
}

/// Adds the storages that only variables describe: those whose `kind` is a variable, and that the file does not have. Returns
/// the names of all storages in the form that variables use, in their order.
fn add_storages(table: &mut Table, variables: &[Variable]) -> Vec<String> {
    let known = table.get(STORAGE).and_then(Value::as_array);
    let known = known.into_iter().flatten();
    let mut names: Vec<String> = known
        .map(|storage| storage.as_table().map(variable_id).unwrap_or_default())
        .collect();
    for variable in variables {
        let Some(name) = variable.kind_of() else {
            continue;
        };
        if names.iter().any(|known| known == name) {
            continue;
        }
        let storages = table
            .entry(STORAGE)
            .or_insert_with(|| Value::Array(Vec::new()));
        // Anything else is reported when the storages are read.
        if let Some(storages) = storages.as_array_mut() {
            let storage = Table::from_iter([("id".to_owned(), Value::from(name))]);
            storages.push(Value::Table(storage));
            names.push(name.to_owned());
        }
    }
    names
}

fn read_config(mut table: Table, memory: Option<u64>) -> Result<Config, ConfigError> {
    let storages = match table.remove(STORAGE) {
        None => Vec::new(),
        Some(Value::Array(storages)) => storages,
        Some(_) => return Err(ConfigError::new(STORAGE, "must be [[storage]] tables")),
    };
    let limits = table.get(LIMITS).and_then(Value::as_table);
    let limits: BTreeSet<String> = limits.into_iter().flat_map(Table::keys).cloned().collect();
    let mut config: Config = read(table)?;
    for (index, storage) in storages.into_iter().enumerate() {
        let path = format!("{STORAGE}.{index}");
        let Value::Table(storage) = storage else {
            return Err(ConfigError::new(path, "must be a table"));
        };
        let storage = StorageConfig::read(storage).map_err(|error| error.within(&path))?;
        config.storage.push(storage);
    }
    if let Some(memory) = memory {
        let fitted = config.limits.fit(memory, |key| limits.contains(key));
        fitted.map_err(|invalid| ConfigError::from(invalid).within(LIMITS))?;
    }
    config.validate()?;
    Ok(config)
}

// === impl File ===

impl File {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError {
            origin: Some(path.display().to_string()),
            ..ConfigError::new("", format!("cannot read the configuration: {error}"))
        })?;
        let path = path.to_owned();
        Ok(Self { path, text })
    }

    fn parse(&self) -> Result<Table, ConfigError> {
        // The full message would repeat the line, which may contain a secret.
        toml::from_str(&self.text).map_err(|error| ConfigError {
            origin: Some(self.at(error.span().map_or(0, |span| span.start))),
            ..ConfigError::new("", error.message())
        })
    }

    /// The line of the key with this path or, if it is not set, of the innermost table around it. `None` if the file has no
    /// such table either.
    fn origin(&self, key: &str) -> Option<String> {
        let table = DeTable::parse(&self.text).ok()?;
        let (first, mut rest) = step(key);
        let (name, value) = table.get_ref().get_key_value(first)?;
        let (mut begin, mut value) = (name.span().start, value.get_ref());
        loop {
            let (at, inner, after) = match value {
                DeValue::Table(table) => {
                    let (name, after) = step(rest);
                    let Some((name, inner)) = table.get_key_value(name) else {
                        break;
                    };
                    (name.span().start, inner, after)
                }
                DeValue::Array(items) => {
                    let found = items.iter().enumerate().filter_map(|(index, item)| {
                        Some((item, within_item(index, item.get_ref(), rest)?))
                    });
                    // The longest one of the ids that fit: an id can contain a dot.
                    let found = found.min_by_key(|(_, after)| after.len());
                    let Some((item, after)) = found else { break };
                    (item.span().start, item, after)
                }
                _ => break,
            };
            (begin, value, rest) = (at, inner.get_ref(), after);
        }
        Some(self.at(begin))
    }

    /// The place of a byte in the file.
    fn at(&self, offset: usize) -> String {
        let before = self.text.bytes().take(offset);
        let line = before.filter(|byte| *byte == b'\n').count() + 1;
        format!("{}, line {line}", self.path.display())
    }
}

/// The first name of a path, and the rest.
fn step(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or((path, ""))
}

/// The rest of a path that begins with an item of a list: with its index or, for a storage, its id.
fn within_item<'a>(index: usize, item: &DeValue<'_>, path: &'a str) -> Option<&'a str> {
    let id = match item {
        DeValue::Table(table) => table.get("id").and_then(|id| id.get_ref().as_str()),
        _ => None,
    };
    let index = index.to_string();
    [Some(index.as_str()), id]
        .into_iter()
        .flatten()
        .find_map(|name| {
            let rest = path.strip_prefix(name)?;
            rest.strip_prefix('.').or(rest.is_empty().then_some(""))
        })
}

// === impl Flags ===

impl Flags {
    /// All users of a machine can read the arguments of its processes. Only the user of a process can read its variables.
    fn refuse_password(&self) -> Result<(), ConfigError> {
        let url = self.redis_url.as_deref().unwrap_or_default();
        match url.parse::<RedisUrl>() {
            Ok(url) if url.has_password() => Err(ConfigError {
                origin: Some("--redis-url".into()),
                ..ConfigError::new(
                    "redis_url",
                    format!(
                        "must not contain a password on the command line, which other users can read: \
                         set {PREFIX}REDIS_URL, or redis_url_file in the configuration"
                    ),
                )
            }),
            // An invalid URL is reported with the other keys.
            _ => Ok(()),
        }
    }
}

// === impl Variable ===

impl Variable {
    /// The key that an environment variable sets, if it is one of the gateway's.
    fn parse((name, value): (String, String)) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let is_of_others = [FILE_VARIABLE, PROFILE_VARIABLE, SERVER_VARIABLE].contains(&&*name);
        if is_of_others || is_service_link(rest) {
            return None;
        }
        Some(Self {
            key: rest.to_ascii_lowercase().replace("__", "."),
            name,
            value,
            aliases: Vec::new(),
        })
    }

    /// Sets `ca_file` in the S3 storages that have none.
    fn ca_bundle(table: &mut Table, path: String) -> Self {
        let storages = table.get_mut(STORAGE).and_then(Value::as_array_mut);
        let mut aliases = Vec::new();
        for (index, storage) in storages.into_iter().flatten().enumerate() {
            let Some(storage) = storage.as_table_mut() else {
                continue;
            };
            let is_s3 = storage.get(KIND).and_then(Value::as_str) == Some("s3");
            if is_s3 && !storage.contains_key("ca_file") {
                storage.insert("ca_file".into(), Value::from(path.as_str()));
                let id = storage
                    .get("id")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                aliases.push(format!("{STORAGE}.{index}.ca_file"));
                aliases.push(format!("{STORAGE}.{id}.ca_file"));
            }
        }
        Self {
            name: AWS_CA_BUNDLE.into(),
            key: String::new(),
            value: path,
            aliases,
        }
    }

    /// The storage whose `kind` it sets, in the form that variables use.
    fn kind_of(&self) -> Option<&str> {
        let (storage, key) = self.key.rsplit_once('.')?;
        let (table, name) = storage.split_once('.')?;
        (table == STORAGE && key == KIND && !name.contains('.')).then_some(name)
    }

    /// Sets its key in `table`. `storages` are the names of the storages in it.
    fn set(&mut self, mut table: &mut Table, storages: &[String]) -> Result<(), ConfigError> {
        let path: Vec<&str> = self.key.split('.').collect();
        if let [STORAGE, name, key] = *path {
            self.aliases = self.set_in_storage(table, storages, name, key)?;
            return Ok(());
        }
        let [parents @ .., key] = &*path else {
            return Ok(());
        };
        for parent in parents {
            let inner = table
                .entry(*parent)
                .or_insert_with(|| Value::Table(Table::new()));
            table = inner
                .as_table_mut()
                .ok_or_else(|| ConfigError::new(*parent, "must be a table"))?;
        }
        table.insert((*key).to_owned(), Value::from(self.value.as_str()));
        Ok(())
    }

    /// Sets a key of a storage. Returns the other paths of the key.
    fn set_in_storage(
        &self,
        table: &mut Table,
        storages: &[String],
        name: &str,
        key: &str,
    ) -> Result<Vec<String>, ConfigError> {
        let index = storages.iter().position(|known| known == name);
        let storage = index.and_then(|index| table.get_mut(STORAGE)?.get_mut(index));
        let (Some(index), Some(storage)) = (index, storage.and_then(Value::as_table_mut)) else {
            let kind = format!("{PREFIX}STORAGE__{}__KIND", name.to_uppercase());
            let problem = format!(
                "the file has no storage of this id; to add one with variables only, set {kind}"
            );
            return Err(ConfigError::new(&self.key, problem));
        };
        storage.insert(key.to_owned(), Value::from(self.value.as_str()));
        let id = storage.get("id").and_then(Value::as_str);
        let storages = [
            format!("{STORAGE}.{index}"),
            format!("{STORAGE}.{}", id.unwrap_or_default()),
        ];
        let mut aliases: Vec<_> = storages
            .iter()
            .map(|path| format!("{path}.{key}"))
            .collect();
        if key == KIND {
            // An error of the whole storage, such as a missing key.
            aliases.extend(storages);
        }
        Ok(aliases)
    }

    /// Whether it sets the key of that path, or the list whose item or item's key it is.
    fn sets(&self, key: &str) -> bool {
        let mut own = std::iter::once(&self.key).chain(&self.aliases);
        own.any(|own| {
            let Some(rest) = key.strip_prefix(own.as_str()) else {
                return false;
            };
            let item = rest.strip_prefix('.').map(step);
            let is_index = |name: &str| name.parse::<usize>().is_ok();
            rest.is_empty() || item.is_some_and(|(name, _)| is_index(name))
        })
    }
}

/// The id of a storage in the form that variables use.
fn variable_id(storage: &Table) -> String {
    let id = storage
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or_default();
    id.to_ascii_lowercase().replace(['-', '.'], "_")
}

/// Kubernetes sets `UPLOAD_GATEWAY_SERVICE_HOST`, `UPLOAD_GATEWAY_PORT_50051_TCP`… in every pod if a Service is called
/// `upload-gateway`. No key begins like these.
fn is_service_link(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

// === impl Origins ===

impl Origins {
    /// Adds the source with the highest precedence that sets the key of `error`.
    fn complete(&self, error: ConfigError) -> ConfigError {
        let flag = self.flags.contains_key(&error.key);
        let flag = flag.then(|| format!("--{}", error.key.replace('_', "-")));
        let variable = || {
            let mut variables = self.variables.iter();
            let variable = variables.find(|variable| variable.sets(&error.key))?;
            Some(variable.name.clone())
        };
        let line = || self.file.as_ref()?.origin(&error.key);
        let origin = flag.or_else(variable).or_else(line);
        if origin.is_some() || error.key.is_empty() || error.key == STORAGE {
            return ConfigError { origin, ..error };
        }
        // Another key requires it, and nothing sets it.
        let variable = format!(
            "{PREFIX}{}",
            error.key.to_ascii_uppercase().replace('.', "__")
        );
        let problem = format!("{}; {variable} sets it", error.problem);
        ConfigError { problem, ..error }
    }
}
