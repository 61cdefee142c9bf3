//! The stores that files go to: `[[storage]]` tables.

use std::{collections::BTreeSet, path::PathBuf};

use serde::{Deserialize, Serialize};
use upload_gateway_core::upload::{MIB, PART_SIZE};

use super::{ByteSize, ConfigError, Endpoint, Secret, values};

/// The ACLs that S3 has a name for.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl>
const CANNED_ACLS: [&str; 7] = [
    "private",
    "public-read",
    "public-read-write",
    "aws-exec-read",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];

/// One store, and how files are laid into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct StorageConfig {
    /// Its name, which uploads ask for and records keep.
    pub id: String,
    /// Where files go when no storage is named.
    pub default: bool,
    /// What every object key begins with.
    pub prefix: String,
    /// The least size of a part but the last.
    pub part_size: ByteSize,
    /// The endpoint as callers reach it, used in signed URLs only. None: the store's endpoint.
    pub public_endpoint: Option<Endpoint>,
    /// Whether plain HTTP to another machine is fine.
    pub allow_http: bool,
    /// The extensions that files may have, in lower case and without the dot. Empty: any.
    pub ext_filter: Vec<String>,
    /// The media types that files may be of, in lower case. Empty: any.
    pub mime_filter: Vec<String>,
    /// The store itself.
    pub store: StoreConfig,
}

/// A store of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// S3, or a store that speaks its protocol.
    S3(S3Storage),
    /// Azure Blob Storage.
    Azure(AzureStorage),
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Storage {
    /// Its name.
    pub bucket: String,
    /// Its region. None: what the SDK finds, else `us-east-1`.
    pub region: Option<String>,
    /// Where the store answers. None: AWS.
    pub endpoint: Option<Endpoint>,
    /// What the store can do.
    pub profile: S3Profile,
    /// The access key id. None: the SDK's default chain.
    pub access_key_id: Option<String>,
    /// The secret that goes with it.
    pub secret_access_key: Option<Secret>,
    /// A file that holds the secret.
    pub secret_access_key_file: Option<PathBuf>,
    /// The canned ACL that objects get. None: none, which buckets without ACLs want.
    pub acl: Option<String>,
}

/// What a store that speaks S3 can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum S3Profile {
    /// All that AWS does.
    Aws,
    /// The calls every store has, addressed by path.
    Compatible,
    /// As `compatible`, and all parts but the last must have one size (Cloudflare R2).
    EqualParts,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureStorage {
    /// The storage account.
    pub account: String,
    /// The container's name.
    pub container: String,
    /// Where the account answers.
    pub endpoint: Endpoint,
    /// The account's key. None: Entra ID.
    pub account_key: Option<Secret>,
    /// A file that holds the key.
    pub account_key_file: Option<PathBuf>,
}

/// The table as it is written: the keys of both kinds.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    id: String,
    kind: Kind,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    prefix: String,
    part_size: Option<ByteSize>,
    public_endpoint: Option<Endpoint>,
    #[serde(default)]
    allow_http: bool,
    #[serde(default, deserialize_with = "values::list")]
    ext_filter: Vec<String>,
    #[serde(default, deserialize_with = "values::list")]
    mime_filter: Vec<String>,
    endpoint: Option<Endpoint>,
    bucket: Option<String>,
    region: Option<String>,
    profile: Option<S3Profile>,
    access_key_id: Option<String>,
    secret_access_key: Option<Secret>,
    secret_access_key_file: Option<PathBuf>,
    acl: Option<String>,
    account: Option<String>,
    container: Option<String>,
    account_key: Option<Secret>,
    account_key_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    S3,
    Azure,
}

/// Refuses storages that cannot work together or with `memory_budget`.
pub(super) fn validate(
    storages: &[StorageConfig],
    memory_budget: ByteSize,
) -> Result<(), ConfigError> {
    let mut ids = BTreeSet::new();
    for storage in storages {
        if !ids.insert(&storage.id) {
            return Err(ConfigError::new(
                format!("storage.{}", storage.id),
                "two storages have this id",
            ));
        }
        storage.validate(memory_budget).map_err(|(key, problem)| {
            ConfigError::new(format!("storage.{}.{key}", storage.id), problem)
        })?;
    }
    let defaults = storages.iter().filter(|storage| storage.default).count();
    if defaults > 1 || (defaults == 0 && storages.len() > 1) {
        return Err(ConfigError::new(
            "storage",
            format!("one of several storages must say default = true; {defaults} do"),
        ));
    }
    Ok(())
}

// === impl StorageConfig ===

impl StorageConfig {
    /// Where the store answers. None: AWS.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.store {
            StoreConfig::S3(s3) => s3.endpoint.as_ref(),
            StoreConfig::Azure(azure) => Some(&azure.endpoint),
        }
    }

    fn validate(&self, memory_budget: ByteSize) -> Result<(), (&'static str, String)> {
        let allowed =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if self.id.is_empty() || self.id.len() > 64 || !self.id.chars().all(allowed) {
            return Err(("id", "1 to 64 letters, digits, `-`, `_` and `.`".into()));
        }
        let least = match self.store {
            StoreConfig::S3(_) => PART_SIZE,
            StoreConfig::Azure(_) => MIB,
        };
        let most = memory_budget.0 / 4;
        let size = self.part_size.0;
        if size < least || size > most || !size.is_multiple_of(MIB) {
            let (least, most) = (ByteSize(least), ByteSize(most));
            return Err((
                "part_size",
                format!(
                    "must be whole MiB from {least} to {most}, a quarter of limits.memory_budget"
                ),
            ));
        }
        let endpoints = [
            ("endpoint", self.endpoint()),
            ("public_endpoint", self.public_endpoint.as_ref()),
        ];
        for (key, endpoint) in endpoints {
            let Some(endpoint) = endpoint else { continue };
            if endpoint.is_plain() && !self.allow_http && !endpoint.is_loopback() {
                return Err((
                    key,
                    "plain HTTP to another machine needs allow_http = true".into(),
                ));
            }
        }
        // In URLs `.` and `..` are directions, which every client follows by itself.
        let is_direction = |name| matches!(name, "." | "..");
        if self.prefix.contains("//")
            || self.prefix.chars().any(char::is_control)
            || self.prefix.split('/').any(is_direction)
        {
            return Err(("prefix", "must be plain names separated by `/`".into()));
        }
        self.validate_filters()?;
        self.store.validate()
    }

    fn validate_filters(&self) -> Result<(), (&'static str, String)> {
        let is_plain = |text: &String, punctuation: &str| {
            let allowed = |character: char| {
                matches!(character, 'a'..='z' | '0'..='9') || punctuation.contains(character)
            };
            !text.is_empty() && text.chars().all(allowed)
        };
        if !self.ext_filter.iter().all(|ext| is_plain(ext, "-_+~")) {
            let wanted = "extensions in lower case and without the dot, such as \"pdf\"";
            return Err(("ext_filter", wanted.into()));
        }
        let is_mime = |mime: &String| mime.contains('/') && is_plain(mime, "/!#$&-^_.+");
        if !self.mime_filter.iter().all(is_mime) {
            let wanted = "media types in lower case, such as \"image/png\"";
            return Err(("mime_filter", wanted.into()));
        }
        Ok(())
    }
}

impl TryFrom<Table> for StorageConfig {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let foreign: Vec<&str> = match table.kind {
            Kind::S3 => [
                ("account", table.account.is_some()),
                ("container", table.container.is_some()),
                ("account_key", table.account_key.is_some()),
                ("account_key_file", table.account_key_file.is_some()),
            ]
            .into_iter()
            .filter_map(|(key, given)| given.then_some(key))
            .collect(),
            Kind::Azure => [
                ("bucket", table.bucket.is_some()),
                ("region", table.region.is_some()),
                ("profile", table.profile.is_some()),
                ("access_key_id", table.access_key_id.is_some()),
                ("secret_access_key", table.secret_access_key.is_some()),
                (
                    "secret_access_key_file",
                    table.secret_access_key_file.is_some(),
                ),
                ("acl", table.acl.is_some()),
            ]
            .into_iter()
            .filter_map(|(key, given)| given.then_some(key))
            .collect(),
        };
        if let Some(key) = foreign.first() {
            return Err(format!(
                "storage `{}` is of the other kind and has no `{key}`",
                table.id
            ));
        }
        let required = |key: &str, value: Option<String>| {
            value
                .filter(|text| !text.is_empty())
                .ok_or_else(|| format!("storage `{}` needs `{key}`", table.id))
        };
        let store = match table.kind {
            Kind::S3 => StoreConfig::S3(S3Storage {
                bucket: required("bucket", table.bucket)?,
                region: table.region,
                profile: table.profile.unwrap_or(match table.endpoint {
                    Some(_) => S3Profile::Compatible,
                    None => S3Profile::Aws,
                }),
                endpoint: table.endpoint,
                access_key_id: table.access_key_id,
                secret_access_key: table.secret_access_key,
                secret_access_key_file: table.secret_access_key_file,
                acl: table.acl,
            }),
            Kind::Azure => {
                let account = required("account", table.account)?;
                let endpoint = match table.endpoint {
                    Some(endpoint) => endpoint,
                    None => format!("https://{account}.blob.core.windows.net")
                        .parse()
                        .map_err(|_| format!("`{account}` is no name of an account"))?,
                };
                StoreConfig::Azure(AzureStorage {
                    container: required("container", table.container)?,
                    account,
                    endpoint,
                    account_key: table.account_key,
                    account_key_file: table.account_key_file,
                })
            }
        };
        Ok(Self {
            id: table.id,
            default: table.default,
            prefix: table.prefix,
            part_size: table.part_size.unwrap_or(ByteSize(PART_SIZE)),
            public_endpoint: table.public_endpoint,
            allow_http: table.allow_http,
            ext_filter: table.ext_filter,
            mime_filter: table.mime_filter,
            store,
        })
    }
}

impl From<StorageConfig> for Table {
    fn from(config: StorageConfig) -> Self {
        let common = Self {
            id: config.id,
            default: config.default,
            prefix: config.prefix,
            part_size: Some(config.part_size),
            public_endpoint: config.public_endpoint,
            allow_http: config.allow_http,
            ext_filter: config.ext_filter,
            mime_filter: config.mime_filter,
            ..Self::default()
        };
        match config.store {
            StoreConfig::S3(s3) => Self {
                kind: Kind::S3,
                endpoint: s3.endpoint,
                bucket: Some(s3.bucket),
                region: s3.region,
                profile: Some(s3.profile),
                access_key_id: s3.access_key_id,
                secret_access_key: s3.secret_access_key,
                secret_access_key_file: s3.secret_access_key_file,
                acl: s3.acl,
                ..common
            },
            StoreConfig::Azure(azure) => Self {
                kind: Kind::Azure,
                endpoint: Some(azure.endpoint),
                account: Some(azure.account),
                container: Some(azure.container),
                account_key: azure.account_key,
                account_key_file: azure.account_key_file,
                ..common
            },
        }
    }
}

// === impl StoreConfig ===

impl StoreConfig {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        match self {
            Self::S3(s3) if !s3.acl.iter().all(|acl| CANNED_ACLS.contains(&&**acl)) => {
                Err(("acl", format!("one of {}", CANNED_ACLS.join(", "))))
            }
            Self::S3(s3) => match (&s3.access_key_id, &s3.secret_access_key) {
                (Some(_), None) => Err((
                    "secret_access_key",
                    "goes with access_key_id; leave out both for the SDK's default chain".into(),
                )),
                (None, Some(_)) => Err((
                    "access_key_id",
                    "goes with secret_access_key; leave out both for the SDK's default chain"
                        .into(),
                )),
                _ => Ok(()),
            },
            Self::Azure(_) => Ok(()),
        }
    }
}
