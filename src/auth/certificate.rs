//! Client certificates: which principal one stands for.

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../fuzz/checks/certificates.rs"]
pub(super) mod fuzzing;

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use upload_gateway_core::gateway::Caller;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    memory::{Digest, Memory},
    principal::{Role, principal},
    rejection::Rejection,
};
use crate::{
    authorities::provider,
    certificates,
    reload::Reloaded,
    values::{self, InvalidKey},
};

/// Client certificates of one authority: a table `[[client_certificate]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateConfig {
    /// The authorities that issue the certificates, in PEM. Read again when it changes.
    pub ca_file: PathBuf,
    /// The trust domain of SPIFFE ids. The subject is the id, `spiffe://domain/path`.
    #[serde(default)]
    pub spiffe_trust_domain: Option<String>,
    /// DNS names. A certificate must have one of them; the first one is the subject.
    #[serde(default, deserialize_with = "values::list")]
    pub dns_names: Vec<String>,
    /// The tenant of the principals. Not for operators.
    #[serde(default)]
    pub tenant: String,
    /// The roles of the principals.
    #[serde(default, deserialize_with = "values::list")]
    pub roles: Vec<Role>,
}

/// The client certificates that stand for principals.
#[derive(Debug)]
pub(super) struct ClientCertificates {
    entries: Vec<Entry>,
    /// With the index of the entry, and its verifier at that time.
    remembered: Memory<(usize, Arc<Verifier>, Caller)>,
}

#[derive(Debug)]
struct Entry {
    config: ClientCertificateConfig,
    verifier: Reloaded<Verifier>,
}

#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

/// The names of a certificate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
}

// === impl ClientCertificateConfig ===

impl ClientCertificateConfig {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub(crate) fn validate(&self) -> Result<(), InvalidKey> {
        let domain = self.spiffe_trust_domain.as_deref();
        if domain.is_some() != self.dns_names.is_empty() {
            let problem = "set either spiffe_trust_domain or dns_names";
            return Err(InvalidKey::new("spiffe_trust_domain", problem));
        }
        let is_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if domain.is_some_and(|domain| domain.is_empty() || !domain.bytes().all(is_name)) {
            let problem = "must be lower-case letters, digits, `.`, `-` and `_`";
            return Err(InvalidKey::new("spiffe_trust_domain", problem));
        }
        let tenant = principal(&self.tenant, "subject", &self.roles).map(drop);
        tenant.map_err(|problem| InvalidKey::new("tenant", problem))
    }

    /// The subject that these names stand for.
    fn subject<'a>(&self, names: &'a Names) -> Option<&'a str> {
        match &self.spiffe_trust_domain {
            Some(domain) => {
                // An X.509-SVID has exactly one URI name.
                let [id] = names.uris.as_slice() else {
                    return None;
                };
                let path = id
                    .strip_prefix("spiffe://")?
                    .strip_prefix(domain.as_str())?;
                let is_id =
                    path.starts_with('/') && path.len() > 1 && !path.contains(['?', '#', '%']);
                is_id.then_some(id.as_str())
            }
            None => {
                let is_known = |name: &&String| {
                    self.dns_names
                        .iter()
                        .any(|known| known.eq_ignore_ascii_case(name))
                };
                names.dns.iter().find(is_known).map(String::as_str)
            }
        }
    }
}

// === impl ClientCertificates ===

impl ClientCertificates {
    /// The certificates of these tables, which are valid. Must be called in a runtime.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(super) fn new(tables: &[ClientCertificateConfig]) -> Result<Self, String> {
        let entries = tables.iter().map(|table| {
            let path = table.ca_file.clone();
            let read = Reloaded::read(
                "authorities of client certificates",
                vec![path.clone()],
                move |contents| Verifier::new(&path, &contents.concat()),
            );
            Ok(Entry {
                config: table.clone(),
                verifier: read?,
            })
        });
        Ok(Self {
            entries: entries.collect::<Result<_, String>>()?,
            remembered: Memory::default(),
        })
    }

    /// The principal of a client that has presented this chain.
    ///
    /// # Errors
    /// `Invalid` if it stands for none.
    pub(super) fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<Caller, Rejection> {
        let Some((leaf, others)) = chain.split_first() else {
            return Err(Rejection::Missing);
        };
        let mut digest = Sha256::new();
        for certificate in chain {
            digest.update(certificate.len().to_be_bytes());
            digest.update(certificate);
        }
        let digest: Digest = digest.finalize().into();
        if let Some(caller) = self.remembered(&digest) {
            return Ok(caller);
        }
        let names =
            Names::of(leaf).ok_or_else(|| Rejection::invalid("the certificate is malformed"))?;
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(subject) = entry.config.subject(&names) else {
                continue;
            };
            let verifier = entry.verifier.latest();
            // The id counts only for the authority of this table.
            let verified = verifier.0.verify_client_cert(leaf, others, UnixTime::now());
            if verified.is_err() {
                continue;
            }
            let caller = principal(&entry.config.tenant, subject, &entry.config.roles);
            let caller = caller.map_err(Rejection::invalid)?;
            let verified = (index, verifier, caller.clone());
            self.remembered.insert(digest, verified, Duration::MAX);
            return Ok(caller);
        }
        Err(Rejection::invalid(
            "no table [[client_certificate]] has the names and the authority of the certificate",
        ))
    }

    fn remembered(&self, digest: &Digest) -> Option<Caller> {
        let (entry, verifier, caller) = self.remembered.get(digest)?;
        let latest = self.entries.get(entry)?.verifier.latest();
        Arc::ptr_eq(&verifier, &latest).then_some(caller)
    }
}

// === impl Verifier ===

impl Verifier {
    fn new(path: &std::path::Path, pem: &[u8]) -> Result<Self, String> {
        let roots = certificates::authorities(path, pem).map_err(|error| error.to_string())?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        builder.build().map(Self).map_err(|error| error.to_string())
    }
}

// === impl Names ===

impl Names {
    /// The alternative names of a certificate. `None` if it is malformed.
    fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let mut names = Self::default();
        let Some(alternative) = certificate.subject_alternative_name().ok()? else {
            return Some(names);
        };
        for name in &alternative.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                _ => {}
            }
        }
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spiffe() -> ClientCertificateConfig {
        ClientCertificateConfig {
            spiffe_trust_domain: Some("example.org".into()),
            tenant: "acme".into(),
            ..ClientCertificateConfig::default()
        }
    }

    fn uris(uris: &[&str]) -> Names {
        Names {
            uris: uris.iter().map(|uri| (*uri).into()).collect(),
            dns: Vec::new(),
        }
    }

    #[test]
    fn a_spiffe_id_must_be_the_only_uri_and_of_the_trust_domain() {
        let id = "spiffe://example.org/ns/media/sa/signage";
        assert_eq!(spiffe().subject(&uris(&[id])), Some(id));
        for refused in [
            &[][..],
            &[id, id],
            &[id, "https://example.org"],
            &["spiffe://example.org"],
            &["spiffe://example.org/"],
            &["spiffe://example.org.evil/ns"],
            &["spiffe://other/ns"],
            &["spiffe://example.org/a?b"],
            &["https://example.org/ns"],
        ] {
            assert_eq!(spiffe().subject(&uris(refused)), None, "{refused:?}");
        }
    }

    #[test]
    fn only_known_dns_names_are_subjects() {
        let config = ClientCertificateConfig {
            dns_names: vec!["signage.example".into()],
            ..ClientCertificateConfig::default()
        };
        let names = |names: &[&str]| Names {
            dns: names.iter().map(|name| (*name).into()).collect(),
            uris: Vec::new(),
        };
        let found = names(&["other.example", "signage.example"]);
        assert_eq!(config.subject(&found), Some("signage.example"));
        assert_eq!(config.subject(&names(&["other.example"])), None);
        assert_eq!(config.subject(&names(&[])), None);
    }

    #[test]
    fn what_cannot_work_is_refused_by_key() {
        spiffe().validate().unwrap();
        let mut both = spiffe();
        both.dns_names = vec!["a".into()];
        let mut neither = spiffe();
        neither.spiffe_trust_domain = None;
        let mut upper = spiffe();
        upper.spiffe_trust_domain = Some("Example".into());
        let mut without_tenant = spiffe();
        without_tenant.tenant = String::new();
        for (config, key) in [
            (both, "spiffe_trust_domain"),
            (neither, "spiffe_trust_domain"),
            (upper, "spiffe_trust_domain"),
            (without_tenant, "tenant"),
        ] {
            assert_eq!(config.validate().unwrap_err().key, key);
        }
    }
}
