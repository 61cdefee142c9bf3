//! JSON Web Tokens: which issuer a token is from, and the memory of those that were verified.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use upload_gateway_core::gateway::Caller;

use super::{
    issuer::{Header, Issuer, IssuerConfig, Verified},
    memory::{Digest, Memory},
    rejection::Rejection,
};

/// Verifies the tokens of all issuers.
#[derive(Debug)]
pub(super) struct Tokens {
    issuers: Vec<Issuer>,
    /// With the index of the issuer.
    remembered: Memory<(usize, Verified)>,
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
            remembered: Memory::default(),
        })
    }

    /// The principal that a token names.
    ///
    /// # Errors
    /// As [`Rejection`] says.
    pub(super) async fn verify(&self, token: &str) -> Result<Caller, Rejection> {
        let digest: Digest = Sha256::digest(token.as_bytes()).into();
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
        let age = left(verified.expires_at);
        self.remembered.insert(digest, (index, verified), age);
        Ok(caller)
    }

    /// The issuers whose keys are fetched, and when these will be too old to be used, if they are not fetched again.
    pub(super) fn keys_expire_at(&self) -> impl Iterator<Item = (&str, SystemTime)> {
        let issuers = self.issuers.iter();
        issuers.filter_map(|issuer| Some((issuer.name(), issuer.keys_expire_at()?)))
    }

    fn remembered(&self, digest: &Digest) -> Option<Caller> {
        let (issuer, verified) = self.remembered.get(digest)?;
        let issuer = self.issuers.get(issuer)?;
        issuer.still_has(&verified).then_some(verified.caller)
    }
}

/// How long a token is valid that expires then, in seconds since 1970.
fn left(expires_at: u64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Duration::from_secs(expires_at).saturating_sub(now.unwrap_or_default())
}

/// A part of a token as JSON.
fn parse<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
