//! The keys of resume tokens: the table `[resume_tokens]`.

use std::{collections::BTreeSet, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use upload_gateway_core::gateway::TokenKey;

use super::error::ConfigError;
use crate::values::Secret;

/// How resume tokens are sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResumeTokens {
    /// The first key seals, all keys open. Empty: a key that is derived from a secret in the state store.
    pub keys: Vec<ResumeTokenKey>,
}

/// A key that seals and opens resume tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeTokenKey {
    /// Its name, which is readable in its tokens.
    pub id: String,
    /// 32 bytes in base64.
    pub key: Option<Secret>,
    /// A file that contains `key`.
    pub key_file: Option<PathBuf>,
}

// === impl ResumeTokens ===

impl ResumeTokens {
    /// The keys as the use cases take them.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub(super) fn token_keys(&self) -> Result<Vec<TokenKey>, ConfigError> {
        let mut ids = BTreeSet::new();
        let mut keys = Vec::new();
        for key in &self.keys {
            let allowed =
                |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
            if key.id.is_empty() || key.id.len() > 64 || !key.id.chars().all(allowed) {
                return Err(ConfigError::new(
                    "resume_tokens.keys.id",
                    "must be 1 to 64 letters, digits, `-`, `_` and `.`",
                ));
            }
            let path = format!("resume_tokens.keys.{}", key.id);
            if !ids.insert(&key.id) {
                return Err(ConfigError::new(path, "two keys have this id"));
            }
            let bytes = key.bytes().ok_or_else(|| {
                ConfigError::new(
                    format!("{path}.key"),
                    "must be 32 bytes in base64, as printed by `openssl rand -base64 32`",
                )
            })?;
            keys.push(TokenKey::new(&key.id, &bytes));
        }
        Ok(keys)
    }
}

// === impl ResumeTokenKey ===

impl ResumeTokenKey {
    fn bytes(&self) -> Option<[u8; 32]> {
        let text = self.key.as_ref()?.expose();
        STANDARD.decode(text.trim()).ok()?.try_into().ok()
    }
}
