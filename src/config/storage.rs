//! The stores for files: the `[[storage]]` tables.
//!
//! The adapter of each kind owns the keys of its kind. A new kind needs a variant of [`StoreConfig`], with its lines in
//! [`KINDS`] and [`StoreConfig::settings`].

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize, de::Error as _};
use toml::Table;
use upload_gateway_core::{
    error::Error,
    escape::is_hidden,
    gateway::{FileExpiry, IntegrityChoice},
    upload::{MIB, PART_SIZE, Placement, keys::KeyTemplate},
};

use super::{
    error::ConfigError,
    reader::{keys_of, read},
    records::Keep,
};
use crate::{
    blobs::{StoreSettings, azure::AzureConfig, s3::S3Config},
    values::{self, ByteSize, InvalidKey},
};

/// The key that selects the kind of a storage.
const KIND: &str = "kind";

/// A kind of store.
struct Kind {
    /// The value of the key `kind`.
    name: &'static str,
    /// The keys that only this kind has.
    keys: fn() -> &'static [&'static str],
    /// Reads these keys.
    read: fn(Table) -> Result<StoreConfig, ConfigError>,
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "s3",
        keys: keys_of::<S3Config>,
        read: |table| read(table).map(StoreConfig::S3),
    },
    Kind {
        name: "azure",
        keys: keys_of::<AzureConfig>,
        read: |table| read(table).map(StoreConfig::Azure),
    },
];

/// A storage: how files are placed in a store, and the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageConfig {
    /// The keys of every kind.
    #[serde(flatten)]
    pub options: StorageOptions,
    /// The keys of its kind.
    #[serde(flatten)]
    pub store: StoreConfig,
}

/// The keys of every kind of storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageOptions {
    /// Its name, which uploads ask for and records keep.
    pub id: String,
    /// Whether files go here if an upload asks for no storage: those of `tenants`, or else of all that have no other default.
    #[serde(default)]
    pub default: bool,
    /// The beginning of every object key.
    #[serde(default)]
    pub prefix: String,
    /// How object keys are made below `prefix`: names and the placeholders `{tenant}`, `{yyyy}`, `{mm}`, `{dd}`, `{upload_id}`
    /// and `{name}`. It must contain `{upload_id}`.
    #[serde(default = "key")]
    pub key: String,
    /// The smallest size of a part that is not the last.
    #[serde(default = "part_size")]
    pub part_size: ByteSize,
    /// Whether an endpoint beyond loopback may be plain HTTP.
    #[serde(default)]
    pub allow_http: bool,
    /// The extensions that files may have, in lower case and without the dot. Empty: any extension.
    #[serde(default, deserialize_with = "values::list")]
    pub ext_filter: Vec<String>,
    /// The media types that files may have, in lower case: `image/png`, or `image/*`. Empty: any media type.
    #[serde(default, deserialize_with = "values::list")]
    pub mime_filter: Vec<String>,
    /// The largest file. Not set: what the store and `limits.max_file_size` allow.
    #[serde(default)]
    pub max_file_size: Option<ByteSize>,
    /// How long files are kept whose uploads do not say it. Not set: for ever, or for `max_expire_after`.
    #[serde(default)]
    pub expire_after: Option<Keep>,
    /// The longest time for which files are kept. Not set: any time.
    #[serde(default)]
    pub max_expire_after: Option<Keep>,
    /// Metadata of objects, which those of an upload are added to.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Tags of objects, which those of an upload are added to.
    #[serde(default)]
    pub object_tags: BTreeMap<String, String>,
    /// `Cache-Control` of objects whose uploads do not say it.
    #[serde(default)]
    pub cache_control: Option<String>,
    /// `Content-Disposition` of objects whose uploads do not say it.
    #[serde(default)]
    pub content_disposition: Option<String>,
    /// `Content-Encoding` of objects whose uploads do not say it.
    #[serde(default)]
    pub content_encoding: Option<String>,
    /// The storage class (S3) or access tier (Azure) of objects whose uploads do not say it.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// Whether every object must be encrypted as the storage is configured. An upload with an object that is not is aborted.
    #[serde(default)]
    pub require_encryption: bool,
    /// Which digest the store compares with the bytes that it receives: `auto`, `crc64nvme` or `md5`. `auto` asks the store before its
    /// first use, and uses CRC-64/NVME if it compares that.
    #[serde(default)]
    pub integrity: IntegrityChoice,
    /// The tenants that have this storage. For others it does not exist. Empty: all tenants.
    #[serde(default, deserialize_with = "values::list")]
    pub tenants: Vec<String>,
}

/// A store of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StoreConfig {
    /// S3, or a store that speaks its protocol.
    S3(S3Config),
    /// Azure Blob Storage.
    Azure(AzureConfig),
}

fn key() -> String {
    KeyTemplate::default().to_string()
}

const fn part_size() -> ByteSize {
    ByteSize(PART_SIZE)
}

/// Refuses storages that cannot work together or with `memory_budget`.
pub(super) fn validate(
    storages: &[StorageConfig],
    memory_budget: ByteSize,
) -> Result<(), ConfigError> {
    let mut ids = BTreeSet::new();
    for storage in storages {
        let path = format!("storage.{}", storage.options.id);
        if !ids.insert(&storage.options.id) {
            return Err(ConfigError::new(path, "two storages have this id"));
        }
        storage
            .validate(memory_budget)
            .map_err(|invalid| ConfigError::from(invalid).within(&path))?;
    }
    validate_defaults(storages)
}

/// Each tenant has one default, and so have all tenants together.
fn validate_defaults(storages: &[StorageConfig]) -> Result<(), ConfigError> {
    let of_all = |storage: &&StorageConfig| storage.options.tenants.is_empty();
    let defaults = storages.iter().filter(|storage| storage.options.default);
    let count = defaults.clone().filter(of_all).count();
    if count > 1 || (count == 0 && storages.iter().filter(of_all).count() > 1) {
        return Err(ConfigError::new(
            "storage",
            format!("exactly one of several storages must have default = true; {count} have it"),
        ));
    }
    let mut tenants = BTreeSet::new();
    for tenant in defaults.flat_map(|storage| &storage.options.tenants) {
        if !tenants.insert(tenant) {
            let problem = format!("two storages are the default of tenant {tenant}");
            return Err(ConfigError::new("storage", problem));
        }
    }
    Ok(())
}

// === impl StorageConfig ===

impl StorageConfig {
    /// Reads a `[[storage]]` table. The derived `Deserialize` accepts the same tables, but serde loses the paths of the
    /// keys in it, and accepts no text for numbers.
    ///
    /// # Errors
    /// The first key that is unknown, of another kind, missing or invalid.
    pub(super) fn read(mut table: Table) -> Result<Self, ConfigError> {
        let names = || KINDS.map(|kind| kind.name).join(", ");
        let name = table
            .remove(KIND)
            .ok_or_else(|| ConfigError::custom(format!("`{KIND}` is required: {}", names())))?;
        let kind = KINDS
            .iter()
            .find(|kind| name.as_str() == Some(kind.name))
            .ok_or_else(|| ConfigError::new(KIND, format!("must be one of {}", names())))?;
        let common = keys_of::<StorageOptions>();
        let (options, store): (Table, Table) = table
            .into_iter()
            .partition(|(key, _)| common.contains(&key.as_str()));
        kind.refuse_other_keys(&store, common)?;
        Ok(Self {
            options: read(options)?,
            store: (kind.read)(store)?,
        })
    }

    fn validate(&self, memory_budget: ByteSize) -> Result<(), InvalidKey> {
        self.options
            .validate(self.store.settings().min_part_size(), memory_budget)?;
        for (key, endpoint) in self.store.settings().endpoints() {
            if endpoint.is_plain() && !self.options.allow_http && !endpoint.is_loopback() {
                return Err(InvalidKey::new(
                    key,
                    "plain HTTP beyond loopback requires allow_http = true",
                ));
            }
        }
        self.store.settings().validate()?;
        self.validate_placement()
    }

    /// How objects are stored whose uploads do not say it.
    pub(crate) fn placement(&self) -> Placement {
        let options = &self.options;
        Placement {
            metadata: options.metadata.clone(),
            object_tags: options.object_tags.clone(),
            cache_control: options.cache_control.clone(),
            content_disposition: options.content_disposition.clone(),
            content_encoding: options.content_encoding.clone(),
            storage_class: options.storage_class.clone(),
            encryption: self.store.settings().encryption(),
        }
    }

    fn validate_placement(&self) -> Result<(), InvalidKey> {
        const DEMAND: &str = "require_encryption";
        let placement = self.placement();
        let features = self.store.settings().features();
        placement.check().map_err(|error| invalid(&error))?;
        placement
            .check_supported(&features)
            .map_err(|error| InvalidKey::new("storage_class", error.to_string()))?;
        match &placement.encryption {
            _ if !self.options.require_encryption => Ok(()),
            None => Err(InvalidKey::new(
                DEMAND,
                "needs encryption (S3) or encryption_scope (Azure)",
            )),
            Some(encryption) if !encryption.can_be_proven() => Err(InvalidKey::new(
                DEMAND,
                "needs the id or the ARN of the key in kms_key_id: the store does not report aliases",
            )),
            Some(_) => Ok(()),
        }
    }
}

/// The first key that an error names.
fn invalid(error: &Error) -> InvalidKey {
    match error.violations() {
        [first, ..] => {
            let key = match first.field {
                Cow::Borrowed(key) => key,
                Cow::Owned(_) => "metadata",
            };
            InvalidKey::new(key, first.description.clone())
        }
        [] => InvalidKey::new("metadata", error.to_string()),
    }
}

// === impl Kind ===

impl Kind {
    /// Refuses the keys of `table` that this kind does not have. `common` are the keys of every kind.
    fn refuse_other_keys(&self, table: &Table, common: &[&'static str]) -> Result<(), ConfigError> {
        let own = (self.keys)();
        let Some(key) = table.keys().find(|key| !own.contains(&key.as_str())) else {
            return Ok(());
        };
        let other = KINDS
            .iter()
            .find(|kind| (kind.keys)().contains(&key.as_str()));
        Err(match other {
            Some(other) => ConfigError::new(
                key,
                format!(
                    "is a key of kind = \"{}\", and this storage has kind = \"{}\"",
                    other.name, self.name
                ),
            ),
            None => ConfigError::unknown_key(key, own.iter().chain(common).copied().chain([KIND])),
        })
    }
}

// === impl StorageOptions ===

impl StorageOptions {
    /// How long files are kept.
    pub(crate) fn expiry(&self) -> FileExpiry {
        let seconds = |keep: Option<Keep>| Some(keep?.duration()?.as_secs());
        FileExpiry {
            default: seconds(self.expire_after),
            max: seconds(self.max_expire_after),
        }
    }

    /// How object keys are made; the default one if it is not valid.
    pub(crate) fn key_template(&self) -> KeyTemplate {
        KeyTemplate::parse(&self.key).unwrap_or_default()
    }

    fn validate(&self, min_part_size: u64, memory_budget: ByteSize) -> Result<(), InvalidKey> {
        let allowed =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if self.id.is_empty() || self.id.len() > 64 || !self.id.chars().all(allowed) {
            return Err(InvalidKey::new(
                "id",
                "must be 1 to 64 letters, digits, `-`, `_` and `.`",
            ));
        }
        let max = memory_budget.0 / 4;
        let size = self.part_size.0;
        if size < min_part_size || size > max || !size.is_multiple_of(MIB) {
            let (min, max) = (ByteSize(min_part_size), ByteSize(max));
            return Err(InvalidKey::new(
                "part_size",
                format!("must be whole MiB from {min} to {max}, a quarter of limits.memory_budget"),
            ));
        }
        // Clients resolve `.` and `..` in a URL before they send it.
        let is_relative = |name| matches!(name, "." | "..");
        if self.prefix.contains("//")
            || self.prefix.chars().any(is_hidden)
            || self.prefix.split('/').any(is_relative)
        {
            return Err(InvalidKey::new(
                "prefix",
                "must be names separated by `/`, without `.`, `..` and control or invisible characters",
            ));
        }
        if self.expire_after > self.max_expire_after && self.max_expire_after.is_some() {
            let problem = "must not be longer than max_expire_after";
            return Err(InvalidKey::new("expire_after", problem));
        }
        let template = KeyTemplate::parse(&self.key);
        template.map_err(|problem| InvalidKey::new("key", problem.to_string()))?;
        self.validate_filters()
    }

    fn validate_filters(&self) -> Result<(), InvalidKey> {
        let is_plain = |text: &String, punctuation: &str| {
            let allowed = |character: char| {
                matches!(character, 'a'..='z' | '0'..='9') || punctuation.contains(character)
            };
            !text.is_empty() && text.chars().all(allowed)
        };
        if !self.ext_filter.iter().all(|ext| is_plain(ext, "-_+~")) {
            return Err(InvalidKey::new(
                "ext_filter",
                "must be extensions in lower case and without the dot, such as \"pdf\"",
            ));
        }
        let is_mime = |mime: &String| {
            let all_of_type = mime.strip_suffix("/*").map(|kind| format!("{kind}/x"));
            let mime = all_of_type.as_ref().unwrap_or(mime);
            mime.contains('/') && is_plain(mime, "/!#$&-^_.+")
        };
        if !self.mime_filter.iter().all(is_mime) {
            return Err(InvalidKey::new(
                "mime_filter",
                "must be media types in lower case, such as \"image/png\" or \"image/*\"",
            ));
        }
        Ok(())
    }
}

// === impl StoreConfig ===

impl StoreConfig {
    /// What every kind of store offers to the process.
    pub fn settings(&self) -> &dyn StoreSettings {
        match self {
            Self::S3(config) => config,
            Self::Azure(config) => config,
        }
    }
}
