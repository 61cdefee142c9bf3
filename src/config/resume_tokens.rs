//! The keys of resume tokens.

use std::{collections::BTreeSet, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret};

/// How resume tokens are sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResumeTokens {
    /// The first seals, all of them open. None: a key made of a secret in the state store.
    pub keys: Vec<ResumeTokenKey>,
}

/// A key that seals and opens resume tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeTokenKey {
    /// Its name, which its tokens show.
    pub id: String,
    /// 32 bytes in base64.
    pub key: Option<Secret>,
    /// A file that holds `key`.
    pub key_file: Option<PathBuf>,
}

// === impl ResumeTokens ===

impl ResumeTokens {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let mut ids = BTreeSet::new();
        for key in &self.keys {
            let allowed =
                |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
            if key.id.is_empty() || key.id.len() > 64 || !key.id.chars().all(allowed) {
                return Err(ConfigError::new(
                    "resume_tokens.keys.id",
                    "1 to 64 letters, digits, `-`, `_` and `.`",
                ));
            }
            let path = format!("resume_tokens.keys.{}", key.id);
            if !ids.insert(&key.id) {
                return Err(ConfigError::new(path, "two keys have this id"));
            }
            if key.bytes().is_none() {
                return Err(ConfigError::new(
                    format!("{path}.key"),
                    "32 bytes in base64, as `openssl rand -base64 32` prints them",
                ));
            }
        }
        Ok(())
    }
}

// === impl ResumeTokenKey ===

impl ResumeTokenKey {
    /// The key itself, if it is one.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        let text = self.key.as_ref()?.expose();
        STANDARD.decode(text.trim()).ok()?.try_into().ok()
    }
}
