//! How a client connects: which servers it trusts, and what it presents to them.

use std::{fmt, path::PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::credential::{Authenticated, Credential};

/// The connection to a gateway, which adds the credential to each call.
pub(crate) type Transport = Authenticated;

/// Which servers a client trusts, and what it presents to them.
///
/// # Examples
/// ```no_run
/// use upload_gateway_client::{Client, ConnectOptions};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ConnectOptions {
///     authorities: Some(std::fs::read_to_string("ca.pem")?),
///     token_file: Some("/var/run/secrets/upload-gateway/token".into()),
///     ..ConnectOptions::default()
/// };
/// let client = Client::connect_with("https://uploads.example:50051", &options)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// Certificates of authorities in PEM, which are trusted besides those of the operating system.
    pub authorities: Option<String>,
    /// The certificate that the client presents, with the certificates of its issuers, in PEM. Needs `key`.
    pub certificate: Option<String>,
    /// The private key of `certificate`, in PEM.
    pub key: Option<String>,
    /// A file with a token. It is read for each call, because tokens rotate.
    pub token_file: Option<PathBuf>,
    /// A program and its arguments that print a token, if there is no `token_file`. It runs without a shell, for at most 30
    /// seconds. Its token is used again for a minute. If the gateway refuses it meanwhile, the call is UNAVAILABLE, and the
    /// next one presents a new token.
    pub token_command: Option<Vec<String>>,
    /// A file with an API key, if there is no token. It is read for each call.
    pub api_key_file: Option<PathBuf>,
}

// === impl ConnectOptions ===

impl ConnectOptions {
    /// The settings of TLS.
    pub(crate) fn tls(&self) -> ClientTlsConfig {
        let mut tls = ClientTlsConfig::new().with_enabled_roots();
        if let Some(authorities) = &self.authorities {
            tls = tls.ca_certificate(Certificate::from_pem(authorities));
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        tls
    }

    pub(crate) fn credential(&self) -> Credential {
        match (&self.token_file, &self.token_command, &self.api_key_file) {
            (Some(path), _, _) => Credential::token(path),
            (None, Some(words), _) => Credential::command(words),
            (None, None, Some(path)) => Credential::api_key(path),
            (None, None, None) => Credential::Nothing,
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectOptions")
            .field("token_file", &self.token_file)
            .field("token_command", &self.token_command.is_some())
            .field("api_key_file", &self.api_key_file)
            .finish_non_exhaustive()
    }
}
