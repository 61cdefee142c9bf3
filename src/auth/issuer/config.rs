//! The configuration of an issuer of tokens.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::values::{self, Endpoint, InvalidKey, Secret};

/// The shortest secret for HS256, in bytes (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;

/// An issuer of tokens: a table `[[issuer]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The value of the claim `iss`.
    pub issuer: String,
    /// The audiences that are accepted. A token must have one of them.
    #[serde(deserialize_with = "values::list")]
    pub audiences: Vec<String>,
    /// How much the clocks of issuer and gateway may differ, in seconds, at most 60.
    #[serde(default = "leeway")]
    pub leeway_seconds: u64,
    /// A file with the key set of the issuer. It is read again when it changes.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Where the key set of the issuer is fetched.
    #[serde(default)]
    pub jwks_url: Option<Endpoint>,
    /// The authorities that are accepted for `jwks_url`, besides those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// A file with a token for `jwks_url`. It is read for each fetch.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// A secret of at least 32 bytes for tokens with HS256, for development.
    #[serde(default)]
    pub hs256_secret: Option<Secret>,
    /// A file that contains `hs256_secret`.
    #[serde(default)]
    pub hs256_secret_file: Option<PathBuf>,
    /// How often the key set is fetched.
    #[serde(default = "refresh")]
    pub refresh_seconds: u64,
    /// The JSON pointer of the claim with the tenant.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The tenant of all tokens, instead of a claim.
    #[serde(default)]
    pub tenant_is: Option<String>,
    /// The JSON pointer of the claim with the subject, which must be stable: it owns uploads.
    #[serde(default = "subject")]
    pub subject: String,
    /// The JSON pointer of the claim with the roles: names, or PlaceOS's number. Not set: no roles.
    #[serde(default)]
    pub roles: Option<String>,
}

const fn leeway() -> u64 {
    30
}

const fn refresh() -> u64 {
    30
}

fn subject() -> String {
    "/sub".into()
}

// === impl IssuerConfig ===

impl IssuerConfig {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub(crate) fn validate(&self) -> Result<(), InvalidKey> {
        let refuse = |key, problem: &str| Err(InvalidKey::new(key, problem));
        if self.issuer.is_empty() {
            return refuse("issuer", "must not be empty");
        }
        if self.audiences.iter().all(String::is_empty) {
            return refuse("audiences", "must have at least one audience");
        }
        if self.leeway_seconds > 60 {
            return refuse("leeway_seconds", "must be at most 60");
        }
        if !(1..=3600).contains(&self.refresh_seconds) {
            return refuse("refresh_seconds", "must be between 1 and 3600");
        }
        let sources = [
            self.jwks_file.is_some(),
            self.jwks_url.is_some(),
            self.hs256_secret.is_some(),
        ];
        if sources.into_iter().filter(|is_set| *is_set).count() != 1 {
            return refuse(
                "issuer",
                "needs exactly one of jwks_file, jwks_url and hs256_secret",
            );
        }
        let secret = self.hs256_secret.as_ref();
        if secret.is_some_and(|secret| secret.expose().len() < MIN_SECRET) {
            return refuse("hs256_secret", "must have at least 32 bytes");
        }
        self.validate_claims()
    }

    fn validate_claims(&self) -> Result<(), InvalidKey> {
        if self.tenant.is_some() == self.tenant_is.is_some() {
            let problem = "set either tenant, the JSON pointer of a claim, or tenant_is";
            return Err(InvalidKey::new("tenant", problem));
        }
        if self.tenant_is.as_deref() == Some("") {
            return Err(InvalidKey::new("tenant_is", "must not be empty"));
        }
        let pointers = [
            ("tenant", self.tenant.as_deref()),
            ("subject", Some(self.subject.as_str())),
            ("roles", self.roles.as_deref()),
        ];
        for (key, pointer) in pointers {
            if pointer.is_some_and(|pointer| !pointer.starts_with('/')) {
                let problem = "must be a JSON pointer, such as /sub or /kubernetes.io/namespace";
                return Err(InvalidKey::new(key, problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> IssuerConfig {
        IssuerConfig {
            issuer: "https://issuer.example".into(),
            audiences: vec!["uploads".into()],
            leeway_seconds: 30,
            refresh_seconds: 30,
            jwks_file: Some("jwks.json".into()),
            tenant: Some("/tenant".into()),
            subject: "/sub".into(),
            ..IssuerConfig::default()
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_key() {
        valid().validate().unwrap();
        type Change = fn(&mut IssuerConfig);
        let cases: [(Change, &str); 11] = [
            (|config| config.issuer.clear(), "issuer"),
            (|config| config.audiences.clear(), "audiences"),
            (|config| config.leeway_seconds = 61, "leeway_seconds"),
            (|config| config.refresh_seconds = 0, "refresh_seconds"),
            (|config| config.jwks_file = None, "issuer"),
            (
                |config| config.hs256_secret = Some("x".repeat(32).into()),
                "issuer",
            ),
            (
                |config| {
                    config.jwks_file = None;
                    config.hs256_secret = Some("x".repeat(31).into());
                },
                "hs256_secret",
            ),
            (|config| config.tenant = None, "tenant"),
            (|config| config.tenant_is = Some("acme".into()), "tenant"),
            (|config| config.subject = "sub".into(), "subject"),
            (|config| config.roles = Some(String::new()), "roles"),
        ];
        for (change, key) in cases {
            let mut config = valid();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().key, key);
        }
    }
}
