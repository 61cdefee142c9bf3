//! JSON Web Tokens: which issuer a token is from, and the memory of those that were verified.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use upload_gateway_core::gateway::Caller;

use super::{
    issuer::{Header, Issuer, IssuerConfig, Verified},
    rejection::Rejection,
};

/// How many verified tokens are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// How long at most a token is remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// Verifies the tokens of all issuers.
#[derive(Debug)]
pub(super) struct Tokens {
    issuers: Vec<Issuer>,
    /// By the SHA-256 of the token.
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    verified: Verified,
    /// The index of the issuer.
    issuer: usize,
    until: Instant,
}

/// The claim that names the issuer.
#[derive(Debug, Deserialize)]
struct IssuerClaim {
    iss: String,
}

// === impl Tokens ===

impl Tokens {
    /// The tokens of these issuers, whose configurations are valid. Must be called in a runtime.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(super) fn new(issuers: &[IssuerConfig]) -> Result<Self, String> {
        let issuers = issuers.iter().cloned().map(Issuer::start);
        Ok(Self {
            issuers: issuers.collect::<Result<_, _>>()?,
            remembered: Mutex::default(),
        })
    }

    /// The principal that a token names.
    ///
    /// # Errors
    /// As [`Rejection`] says.
    pub(super) async fn verify(&self, token: &str) -> Result<Caller, Rejection> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(caller) = self.remembered(&digest) {
            return Ok(caller);
        }
        let mut parts = token.split('.');
        let mut part = || parts.next().unwrap_or_default();
        let (header, claims) = (parse::<Header>(part()), parse::<IssuerClaim>(part()));
        let (Some(header), Some(claims)) = (header, claims) else {
            return Err(Rejection::invalid("not a JSON Web Token"));
        };
        let mut issuers = self.issuers.iter().enumerate();
        let issuer = issuers.find(|(_, issuer)| issuer.name() == claims.iss);
        let (index, issuer) = issuer.ok_or_else(|| Rejection::invalid("unknown issuer"))?;
        let verified = issuer.verify(token, &header).await?;
        let caller = verified.caller.clone();
        self.remember(digest, verified, index);
        Ok(caller)
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Caller> {
        let mut remembered = self.lock();
        let found = remembered.get(digest)?;
        let is_valid = found.until > Instant::now()
            && self.issuers.get(found.issuer)?.still_has(&found.verified);
        if !is_valid {
            remembered.remove(digest);
            return None;
        }
        Some(found.verified.caller.clone())
    }

    fn remember(&self, digest: [u8; 32], verified: Verified, issuer: usize) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let left = verified
            .expires_at
            .saturating_sub(now.unwrap_or_default().as_secs());
        let until = Instant::now() + MEMORY.min(Duration::from_secs(left));
        let mut remembered = self.lock();
        if remembered.len() >= MAX_REMEMBERED {
            let now = Instant::now();
            remembered.retain(|_, remembered| remembered.until > now);
            if remembered.len() >= MAX_REMEMBERED {
                remembered.clear();
            }
        }
        let token = Remembered {
            verified,
            issuer,
            until,
        };
        remembered.insert(digest, token);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Remembered>> {
        // A std mutex: held for a few instructions, never across an await.
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a token as JSON.
fn parse<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
