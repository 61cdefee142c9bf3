//! Keys that seal: of resume tokens, and of what the stores keep of records.

use std::{collections::BTreeSet, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use crate::values::Secret;

/// A key that seals and opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Its name, which is readable in what it has sealed.
    pub id: String,
    /// 32 bytes in base64.
    pub key: Option<Secret>,
    /// A file that contains `key`.
    pub key_file: Option<PathBuf>,
}

/// The ids and the bytes of the keys of the list `path`.
///
/// # Errors
/// The first key that is invalid.
pub(super) fn read_keys<'a>(
    path: &str,
    keys: &'a [KeyConfig],
) -> Result<Vec<(&'a str, [u8; 32])>, ConfigError> {
    let mut ids = BTreeSet::new();
    let mut read = Vec::new();
    for key in keys {
        let allowed =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if key.id.is_empty() || key.id.len() > 64 || !key.id.chars().all(allowed) {
            return Err(ConfigError::new(
                format!("{path}.id"),
                "must be 1 to 64 letters, digits, `-`, `_` and `.`",
            ));
        }
        let path = format!("{path}.{}", key.id);
        if !ids.insert(&key.id) {
            return Err(ConfigError::new(path, "two keys have this id"));
        }
        let bytes = key.bytes().ok_or_else(|| {
            ConfigError::new(
                format!("{path}.key"),
                "must be 32 bytes in base64, as printed by `openssl rand -base64 32`",
            )
        })?;
        read.push((key.id.as_str(), bytes));
    }
    Ok(read)
}

// === impl KeyConfig ===

impl KeyConfig {
    fn bytes(&self) -> Option<[u8; 32]> {
        let text = self.key.as_ref()?.expose();
        STANDARD.decode(text.trim()).ok()?.try_into().ok()
    }
}
