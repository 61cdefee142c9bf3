//! Which authorities vouch for a server: those of the system, and those of a file.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::certificates::{self, PemError};

/// Accepts servers of the authorities of the system and of a file. The file is read for each handshake: connections are kept,
/// so handshakes are rare, and the file is small.
#[derive(Debug)]
struct FileAuthorities {
    path: PathBuf,
    last: Mutex<Last>,
}

/// The file as it was read last.
#[derive(Debug)]
struct Last {
    pem: Vec<u8>,
    verifier: Arc<WebPkiServerVerifier>,
    /// Why the file cannot be used since then. It is logged once.
    problem: Option<String>,
}

/// The settings of TLS for connections to a server with this `ca_file`.
///
/// # Errors
/// The file cannot be used.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, PemError> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let builder = || {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
    };
    let Some(path) = ca_file else {
        let config = SYSTEM.get_or_init(|| {
            let builder = builder().with_root_certificates(system_roots().clone());
            Arc::new(builder.with_no_client_auth())
        });
        return Ok(Arc::clone(config));
    };
    let authorities = Arc::new(FileAuthorities::read(path)?);
    let builder = builder()
        .dangerous()
        .with_custom_certificate_verifier(authorities);
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// The authorities of the system, read once. `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(
                errors = ?found.errors,
                "the system has no root certificates: over https only servers with a ca_file can be reached"
            );
        }
        roots
    })
}

/// The cryptography of all TLS connections.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

fn verifier(path: &Path, pem: &[u8]) -> Result<Arc<WebPkiServerVerifier>, PemError> {
    let mut roots = certificates::authorities(path, pem)?;
    roots.extend(system_roots().roots.iter().cloned());
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(builder
        .build()
        .expect("there are roots, and no revocation lists"))
}

// === impl FileAuthorities ===

impl FileAuthorities {
    fn read(path: &Path) -> Result<Self, PemError> {
        let pem = certificates::read(path)?;
        Ok(Self {
            path: path.to_owned(),
            last: Mutex::new(Last {
                verifier: verifier(path, &pem)?,
                pem,
                problem: None,
            }),
        })
    }

    /// For the content that the file has now. If it cannot be used, that is logged, and the last one counts.
    fn current(&self) -> Arc<WebPkiServerVerifier> {
        let path = &self.path;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let read = certificates::read(path).and_then(|pem| {
            if pem != last.pem {
                last.verifier = verifier(path, &pem)?;
                last.pem = pem;
                tracing::info!(path = %path.display(), "read the authorities of a server again");
            }
            Ok(())
        });
        let problem = read.err().map(|error| error.to_string());
        if let Some(error) = &problem
            && last.problem != problem
        {
            tracing::warn!(%error, "cannot read the authorities of a server again");
        }
        last.problem = problem;
        Arc::clone(&last.verifier)
    }

    fn last(&self) -> Arc<WebPkiServerVerifier> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&last.verifier)
    }
}

impl ServerCertVerifier for FileAuthorities {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.current()
            .verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.last()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.last()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.last().supported_verify_schemes()
    }
}
