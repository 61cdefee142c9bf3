//! The keys of resume tokens: the table `[resume_tokens]`.

use serde::{Deserialize, Serialize};
use upload_gateway_core::gateway::TokenKey;

use super::{
    error::ConfigError,
    keys::{KeyConfig, read_keys},
};

/// How resume tokens are sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResumeTokens {
    /// The first key seals, all keys open. Empty: a key that is derived from a secret in the state store.
    pub keys: Vec<KeyConfig>,
}

// === impl ResumeTokens ===

impl ResumeTokens {
    /// The keys as the use cases take them.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub(super) fn token_keys(&self) -> Result<Vec<TokenKey>, ConfigError> {
        let keys = read_keys("resume_tokens.keys", &self.keys)?.into_iter();
        Ok(keys.map(|(id, key)| TokenKey::new(id, &key)).collect())
    }
}
