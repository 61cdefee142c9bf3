//! TLS on connections of callers.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig, pki_types::CertificateDer, server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::Protocol;
use crate::{
    authorities::provider,
    certificates,
    reload::Reloaded,
    room::{Room, Rules},
    values::InvalidKey,
};

/// At most this many handshakes run at a time. One that the client does not continue ends for another one.
const HANDSHAKES: Rules = Rules {
    what: "TLS handshakes",
    limit: None,
    total: 2048,
    per_owner: u32::MAX,
    reserve: 0,
    wait_limit: Duration::from_secs(10),
    yields_after: Duration::ZERO,
    ends_after: None,
};

/// TLS of both listeners: the table `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate of the gateway, then those of its issuers, in PEM. Not set: no TLS. This file, the key and the
    /// authorities are read again when they change.
    pub cert_file: Option<PathBuf>,
    /// The private key of the certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The authorities of client certificates, in PEM. Those of the tables `[[client_certificate]]` are accepted, too.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients present a certificate.
    pub client_auth: ClientAuth,
}

/// Whether clients present a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// They can.
    Optional,
    /// They must.
    Required,
}

/// Accepts TLS connections, with the certificate that the files have at that time.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    configs: Reloaded<Configs>,
    handshakes: Arc<Room>,
}

#[derive(Debug)]
struct Configs {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

// === impl TlsConfig ===

impl TlsConfig {
    /// Whether callers connect over TLS.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub(crate) fn validate(&self) -> Result<(), InvalidKey> {
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => {
                return Err(InvalidKey::new("key_file", "is missing beside cert_file"));
            }
            (None, Some(_)) => {
                return Err(InvalidKey::new("cert_file", "is missing beside key_file"));
            }
            _ => {}
        }
        if !self.is_on() && (self.client_ca_file.is_some() || self.client_auth != ClientAuth::None)
        {
            return Err(InvalidKey::new(
                "cert_file",
                "is missing: clients present certificates only over TLS",
            ));
        }
        Ok(())
    }
}

// === impl Tls ===

impl Tls {
    /// Accepts connections as `config` says. The authorities in `client_authorities` are accepted, too. `None` without TLS.
    /// Must be called in a runtime.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub(crate) fn new(
        config: &TlsConfig,
        client_authorities: &[PathBuf],
    ) -> Result<Option<Self>, String> {
        let (Some(cert_file), Some(key_file)) = (&config.cert_file, &config.key_file) else {
            return Ok(None);
        };
        let client_auth = config.client_auth;
        let mut paths = vec![cert_file.clone(), key_file.clone()];
        if client_auth != ClientAuth::None {
            paths.extend(config.client_ca_file.clone());
            paths.extend_from_slice(client_authorities);
        }
        let files = paths.clone();
        let read = Reloaded::read("TLS", paths, move |contents| {
            Configs::new(client_auth, &files, contents)
        });
        Ok(Some(Self {
            configs: read?,
            handshakes: Room::new(HANDSHAKES),
        }))
    }

    /// Accepts a connection. Returns it and the certificates that the client has presented.
    pub(super) async fn accept(
        &self,
        tcp: TcpStream,
        protocol: Protocol,
    ) -> io::Result<(TlsStream<TcpStream>, Vec<CertificateDer<'static>>)> {
        let end = CancellationToken::new();
        let place = self.handshakes.enter(end.clone());
        place.take(1).await.map_err(io::Error::other)?;
        place.wait_for_client();
        let configs = self.configs.latest();
        let config = match protocol {
            Protocol::Http1 { .. } => &configs.http1,
            Protocol::Http2 { .. } => &configs.http2,
        };
        let stream = tokio::select! {
            stream = TlsAcceptor::from(Arc::clone(config)).accept(tcp) => stream?,
            () = end.cancelled() => return Err(io::Error::other("another handshake needs the place")),
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|each| each.clone().into_owned());
        let certificates = certificates.collect();
        Ok((stream, certificates))
    }
}

// === impl Configs ===

impl Configs {
    /// The configurations with the contents of these files: certificate, key, and authorities.
    fn new(
        client_auth: ClientAuth,
        paths: &[PathBuf],
        contents: &[Vec<u8>],
    ) -> Result<Self, String> {
        let mut files = paths.iter().zip(contents);
        let mut next = || files.next().ok_or("a file is missing");
        let ((cert_path, cert), (key_path, key)) = (next()?, next()?);
        let text = |error: certificates::PemError| error.to_string();
        let chain = certificates::certificates(cert_path, cert).map_err(text)?;
        let key = || certificates::private_key(key_path, key).map_err(text);
        certificates::check_pair(chain.clone(), key()?)
            .map_err(|error| format!("{} {error}", key_path.display()))?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional | ClientAuth::Required => {
                let mut roots = RootCertStore::empty();
                for (path, pem) in files {
                    let authorities = certificates::authorities(path, pem).map_err(text)?;
                    roots.extend(authorities.roots);
                }
                let mut verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                if client_auth == ClientAuth::Optional {
                    verifier = verifier.allow_unauthenticated();
                }
                let verifier = verifier.build().map_err(|error| error.to_string())?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(chain, key()?);
        let mut http1 = config.map_err(|error| error.to_string())?;
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
        })
    }
}
