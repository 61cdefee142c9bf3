//! Certificates and private keys in PEM files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// Why a PEM file cannot be used. The text names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// Its content is something else.
    #[error("{} must contain {expected} in PEM", path.display())]
    Malformed {
        path: PathBuf,
        expected: &'static str,
    },
}

/// A client certificate and its private key do not work together.
#[derive(Debug, thiserror::Error)]
#[error("does not belong to the certificate: {0}")]
pub(crate) struct KeyMismatch(rustls::Error);

/// When a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) begins_at: i64,
    pub(crate) expires_at: i64,
}

/// The content of a PEM file.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    fs::read(path).map_err(|source| PemError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// The certificate authorities in a PEM file with this content.
///
/// # Errors
/// There is no certificate in it, or one that cannot be an authority.
pub(crate) fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots
            .add(certificate)
            .map_err(|_| malformed(path, "certificates of authorities"))?;
    }
    Ok(roots)
}

/// The certificates in a PEM file with this content: at least one.
///
/// # Errors
/// The content is something else.
pub(crate) fn certificates(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(malformed(path, "certificates")),
    }
}

/// When the certificates in a PEM file with this content are valid: at least one.
///
/// # Errors
/// The content is something else.
pub(crate) fn validities(path: &Path, pem: &[u8]) -> Result<Vec<Validity>, PemError> {
    let validity = |certificate: CertificateDer<'_>| {
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        let validity = parsed.validity();
        Some(Validity {
            begins_at: validity.not_before.timestamp(),
            expires_at: validity.not_after.timestamp(),
        })
    };
    let all = certificates(path, pem)?.into_iter().map(validity);
    all.collect::<Option<_>>()
        .ok_or_else(|| malformed(path, "certificates"))
}

/// The private key in a PEM file with this content.
///
/// # Errors
/// The content is something else, for example an encrypted key.
pub(crate) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| malformed(path, "a private key without a password"))
}

/// Checks that `key` is the key of the first of these certificates.
///
/// # Errors
/// It is not.
pub(crate) fn check_pair(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(), KeyMismatch> {
    CertifiedKey::from_der(certificates, key, &aws_lc_rs::default_provider())
        .map(drop)
        .map_err(KeyMismatch)
}

fn malformed(path: &Path, expected: &'static str) -> PemError {
    PemError::Malformed {
        path: path.to_owned(),
        expected,
    }
}
