//! An issuer of tokens: whether a token is one of its own, and which principal it names.

mod claims;
mod config;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../fuzz/checks/claims.rs"]
pub(super) mod fuzzing;
mod keys;
mod source;

use std::{sync::Arc, time::SystemTime};

use jsonwebtoken::{Validation, decode, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;
use upload_gateway_core::gateway::Caller;

pub use self::config::IssuerConfig;
use self::{keys::KeySet, source::Keys};
use super::rejection::Rejection;

/// An issuer, and its latest keys.
#[derive(Debug)]
pub(super) struct Issuer {
    config: IssuerConfig,
    keys: Keys,
}

/// The header of a token. Everything else in it is ignored, such as URLs of keys.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11).
    crit: Option<Value>,
}

/// A verified token.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) caller: Caller,
    /// When it expires, in seconds since 1970.
    pub(super) expires_at: u64,
    /// The set whose key has signed it.
    keys: Arc<KeySet>,
}

// === impl Issuer ===

impl Issuer {
    /// An issuer with this configuration, which is valid. Must be called in a runtime.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(super) fn start(config: IssuerConfig) -> Result<Self, String> {
        let keys = Keys::start(&config);
        let keys = keys.map_err(|problem| format!("issuer {}: {problem}", config.issuer))?;
        Ok(Self { config, keys })
    }

    /// The value of `iss` in its tokens.
    pub(super) fn name(&self) -> &str {
        &self.config.issuer
    }

    /// When its keys will be too old to be used, if they are not fetched again.
    pub(super) fn keys_expire_at(&self) -> Option<SystemTime> {
        self.keys.expire_at()
    }

    /// Verifies a token that claims to be from this issuer.
    ///
    /// # Errors
    /// As [`Rejection`] says.
    pub(super) async fn verify(&self, token: &str, header: &Header) -> Result<Verified, Rejection> {
        if header.crit.is_some() {
            return Err(Rejection::invalid("the header has unknown extensions"));
        }
        let keys = self.keys.with(header.kid.as_deref()).await?;
        let key = keys.find(header.kid.as_deref());
        let key = key.ok_or_else(|| Rejection::invalid("no key has this id"))?;
        // The key decides the algorithm, not the token.
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = self.config.leeway_seconds;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let decoded = decode::<Value>(token, &key.key, &validation);
        let claims = match decoded {
            Ok(decoded) => decoded.claims,
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                return Err(Rejection::Expired);
            }
            Err(error) => return Err(Rejection::invalid(error.to_string())),
        };
        let caller = claims::principal_of(&self.config, &claims).map_err(Rejection::invalid)?;
        // One with a fraction is not remembered.
        let expires_at = claims.get("exp").and_then(Value::as_u64);
        let expires_at = expires_at.unwrap_or_default();
        Ok(Verified {
            caller,
            expires_at: expires_at.saturating_add(self.config.leeway_seconds),
            keys,
        })
    }

    /// Whether the key of a verified token is still one of the issuer's.
    pub(super) fn still_has(&self, verified: &Verified) -> bool {
        Arc::ptr_eq(&verified.keys, &self.keys.latest())
    }
}
