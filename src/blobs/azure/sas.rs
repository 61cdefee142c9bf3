//! Service shared access signatures for containers and blobs.
//!
//! With the account's key, the string to sign is the one of version 2020-12-06 and later
//! (<https://learn.microsoft.com/rest/api/storageservices/create-service-sas>). With a user delegation key, Microsoft's
//! library signs, and the signature can also bind the query and headers of the request
//! (<https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas>).

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use azure_core::time::{OffsetDateTime, parse_rfc3339, to_rfc3339};
use azure_storage_sas::{SasBuilder, SasProtocol};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use upload_gateway_core::error::{Error, Result};

use crate::{blobs::url::Query, values::Secret};

/// The `sv` of every signature with an account key.
pub const VERSION: &str = "2024-05-04";

/// How long before now a signature becomes valid: clocks differ, and Azure refuses a signature that is not valid yet.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// An account and its key.
#[derive(Debug, Clone)]
pub struct AccountKey {
    account: String,
    key: SecretSlice<u8>,
}

/// A key for an Entra ID identity, in the form in which Azure returns it. `Debug` does not print the key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DelegationKey {
    /// The object id of the identity that requested it.
    pub signed_oid: String,
    /// The tenant of that identity.
    pub signed_tid: String,
    /// When it becomes valid (RFC 3339).
    pub signed_start: String,
    /// When it expires (RFC 3339).
    pub signed_expiry: String,
    /// The service it is for: `b`.
    pub signed_service: String,
    /// The version of the service that issued it.
    pub signed_version: String,
    /// The key in base64.
    pub value: String,
}

/// What one signature allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The container.
    pub container: &'a str,
    /// The only blob that it is for; `None` for every blob of the container.
    pub blob: Option<&'a str>,
    /// Letters in Azure's order: `r`ead, `a`dd, `c`reate, `w`rite, `d`elete, `l`ist, `t`ags.
    pub permissions: &'a str,
    /// How long from now it is valid.
    pub lifetime: Duration,
    /// Whether plain HTTP is refused.
    pub https_only: bool,
    /// The `Content-Disposition` and `Content-Type` of the response, if they differ from the blob's.
    pub answer: Option<Answer<'a>>,
    /// The other query parameters of the request. Only a user delegation key binds them.
    pub query: &'a [(&'static str, String)],
    /// Headers of the request, in lower case. Only a user delegation key binds them.
    pub headers: &'a [(String, &'a str)],
    /// The encryption scope of what is written. Requests that name another one are refused.
    pub scope: Option<&'a str>,
}

/// The headers of a response that a signature sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its `Content-Disposition`.
    pub disposition: &'a str,
    /// Its `Content-Type`.
    pub mime: &'a str,
}

// === impl AccountKey ===

impl AccountKey {
    /// An account and its key, in base64.
    ///
    /// # Errors
    /// `Internal` if the key is not base64.
    pub fn new(account: impl Into<String>, key: &Secret) -> Result<Self> {
        let key = STANDARD
            .decode(key.expose().trim())
            .map_err(|_| Error::fault("account_key is not base64"))?;
        Ok(Self {
            account: account.into(),
            key: key.into(),
        })
    }

    /// The query of a URL that allows `grant`, valid from [`CLOCK_SKEW`] before `now`.
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
        let answer = grant.answer.as_ref();
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
            grant.scope.unwrap_or_default(),
            "", // Cache-Control of the response
            answer.map_or("", |answer| answer.disposition),
            "", // Content-Encoding
            "", // Content-Language
            answer.map_or("", |answer| answer.mime),
        ]
        .join("\n");
        let mut code = Hmac::<Sha256>::new_from_slice(self.key.expose_secret())
            .expect("HMAC takes keys of every length");
        code.update(signed.as_bytes());
        let signature = STANDARD.encode(code.finalize().into_bytes());

        let mut query: Query = [
            ("sv", VERSION),
            ("spr", protocol),
            ("st", &start),
            ("se", &expiry),
            ("sp", grant.permissions),
            ("sr", resource),
        ]
        .into_iter()
        .collect();
        if let Some(scope) = grant.scope {
            query.push("ses", scope);
        }
        if let Some(answer) = answer {
            query.push("rscd", answer.disposition);
            query.push("rsct", answer.mime);
        }
        query.push("sig", &signature);
        query.into_string()
    }
}

// === impl DelegationKey ===

impl DelegationKey {
    /// The query of a URL that allows `grant` on a blob of `account`, valid from [`CLOCK_SKEW`] before `now`.
    ///
    /// # Errors
    /// `Internal` if the key is malformed, or the grant is not for a single blob.
    pub fn sign(&self, account: &str, grant: &Grant<'_>, now: SystemTime) -> Result<String> {
        let blob = grant
            .blob
            .ok_or_else(|| Error::fault("a user delegation key signs only for single blobs"))?;
        // The library takes a type that it does not export: the one that it deserializes the service's response into.
        let key = serde_json::to_value(self).and_then(serde_json::from_value);
        let key = key.map_err(|error| Error::internal("read the user delegation key", error))?;
        let expiry = OffsetDateTime::from(now + grant.lifetime);
        let mut builder = SasBuilder::new(account, &key, expiry)
            .map_err(|error| Error::internal("read the user delegation key", error))?
            .start(OffsetDateTime::from(now - CLOCK_SKEW))
            .protocol(if grant.https_only {
                SasProtocol::Https
            } else {
                SasProtocol::HttpsAndHttp
            })
            .blob(grant.container, blob);
        for permission in grant.permissions.chars() {
            builder = match permission {
                'r' => builder.read(),
                'c' => builder.create(),
                'w' => builder.write(),
                't' => builder.tags(),
                other => return Err(Error::fault(format!("unknown permission `{other}`"))),
            };
        }
        if let Some(answer) = grant.answer {
            builder = builder
                .content_disposition(answer.disposition)
                .content_type(answer.mime);
        }
        for (name, value) in grant.query {
            builder = builder.signed_request_query_parameter(*name, value);
        }
        for (name, value) in grant.headers {
            builder = builder.signed_request_header(name, *value);
        }
        if let Some(scope) = grant.scope {
            builder = builder.encryption_scope(scope);
        }
        Ok(builder.build())
    }

    /// When it expires.
    ///
    /// # Errors
    /// `Internal` if the stored time is invalid.
    pub fn expires_at(&self) -> Result<SystemTime> {
        parse_rfc3339(&self.signed_expiry)
            .map(SystemTime::from)
            .map_err(|error| Error::internal("read the user delegation key", error))
    }
}

impl fmt::Debug for DelegationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DelegationKey")
            .field("signed_oid", &self.signed_oid)
            .field("signed_expiry", &self.signed_expiry)
            .finish_non_exhaustive()
    }
}

/// A time in whole seconds, as Azure expects it.
fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    to_rfc3339(&time.replace_nanosecond(0).unwrap_or(time))
}
