//! Service shared access signatures, signed with the account's key.
//!
//! The string that is signed is the one of version 2020-12-06 and later:
//! <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>

use std::time::{Duration, SystemTime};

use azure_core::time::{OffsetDateTime, to_rfc3339};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use url::form_urlencoded::Serializer;

use crate::{
    blobs::SecretKey,
    error::{Error, Result},
};

/// The `sv` of every signature.
pub const VERSION: &str = "2024-05-04";

/// How long before now a signature begins: clocks differ, and Azure refuses what begins in its future.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// An account and its key.
#[derive(Debug, Clone)]
pub struct AccountKey {
    account: String,
    key: SecretBytes,
}

/// What one signature allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The container.
    pub container: &'a str,
    /// The only blob it is for; every blob of the container when absent.
    pub blob: Option<&'a str>,
    /// Letters in Azure's order: `r`ead, `a`dd, `c`reate, `w`rite, `d`elete, `l`ist.
    pub permissions: &'a str,
    /// How long from now.
    pub lifetime: Duration,
    /// Whether plain HTTP is refused.
    pub https_only: bool,
}

#[derive(Clone)]
struct SecretBytes(Vec<u8>);

// === impl AccountKey ===

impl AccountKey {
    /// # Errors
    /// The key is not base64.
    pub fn new(account: impl Into<String>, key: &SecretKey) -> Result<Self> {
        let key = STANDARD
            .decode(key.expose().trim())
            .map_err(|_| Error::fault("account_key is not base64"))?;
        Ok(Self {
            account: account.into(),
            key: SecretBytes(key),
        })
    }

    /// The query of a URL that carries `grant`, from five minutes before `now`.
    pub fn sign(&self, grant: &Grant<'_>, now: SystemTime) -> String {
        let start = timestamp(now - CLOCK_SKEW);
        let expiry = timestamp(now + grant.lifetime);
        let protocol = if grant.https_only {
            "https"
        } else {
            "https,http"
        };
        let (resource, path) = match grant.blob {
            Some(blob) => ("b", format!("{}/{blob}", grant.container)),
            None => ("c", grant.container.to_owned()),
        };
        let signed = [
            grant.permissions,
            &start,
            &expiry,
            &format!("/blob/{}/{path}", self.account),
            "", // stored access policy
            "", // address range
            protocol,
            VERSION,
            resource,
            "", // snapshot
            "", // encryption scope
            "", // Cache-Control of the answer, and four more headers
            "",
            "",
            "",
            "",
        ]
        .join("\n");
        let mut code =
            Hmac::<Sha256>::new_from_slice(&self.key.0).expect("HMAC takes keys of every length");
        code.update(signed.as_bytes());
        let signature = STANDARD.encode(code.finalize().into_bytes());
        Serializer::new(String::new())
            .append_pair("sv", VERSION)
            .append_pair("sr", resource)
            .append_pair("sp", grant.permissions)
            .append_pair("st", &start)
            .append_pair("se", &expiry)
            .append_pair("spr", protocol)
            .append_pair("sig", &signature)
            .finish()
    }
}

// === impl SecretBytes ===

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Whole seconds, as Azure wants them.
fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    to_rfc3339(&time.replace_nanosecond(0).unwrap_or(time))
}
