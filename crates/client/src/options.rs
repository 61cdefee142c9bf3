//! How a client connects: which servers it trusts, and what it presents to them.

use std::{
    fmt,
    fs::read_to_string,
    path::{Path, PathBuf},
    sync::Arc,
};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataKey, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

/// The connection to a gateway, which adds the credential to each call.
pub(crate) type Transport = InterceptedService<Channel, Credential>;

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
    /// A file with an API key, if there is no token. It is read for each call.
    pub api_key_file: Option<PathBuf>,
}

/// What is added to each call.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Nothing,
    /// A file with a token.
    Token(Arc<Path>),
    /// A file with an API key.
    ApiKey(Arc<Path>),
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
        match (&self.token_file, &self.api_key_file) {
            (Some(path), _) => Credential::Token(path.as_path().into()),
            (None, Some(path)) => Credential::ApiKey(path.as_path().into()),
            (None, None) => Credential::Nothing,
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectOptions")
            .field("token_file", &self.token_file)
            .field("api_key_file", &self.api_key_file)
            .finish_non_exhaustive()
    }
}

// === impl Credential ===

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let (name, text) = match self {
            Self::Nothing => return Ok(request),
            Self::Token(path) => ("authorization", format!("Bearer {}", read(path)?)),
            Self::ApiKey(path) => ("x-api-key", read(path)?),
        };
        let malformed = |_| Status::invalid_argument("the credential is no visible ASCII");
        let mut value: MetadataValue<Ascii> = text.parse().map_err(malformed)?;
        value.set_sensitive(true);
        request
            .metadata_mut()
            .insert(MetadataKey::from_static(name), value);
        Ok(request)
    }
}

/// The content of a file with a credential.
fn read(path: &Path) -> Result<String, Status> {
    let text = read_to_string(path);
    // It may be back for the next try.
    let text = text
        .map_err(|error| Status::unavailable(format!("cannot read {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_for_each_call() {
        let path =
            std::env::temp_dir().join(format!("upload-gateway-token-{}", std::process::id()));
        let options = ConnectOptions {
            token_file: Some(path.clone()),
            ..ConnectOptions::default()
        };
        let mut credential = options.credential();
        assert_eq!(
            credential.call(Request::new(())).unwrap_err().code(),
            tonic::Code::Unavailable
        );
        for token in ["one", "two"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            let request = credential.call(Request::new(())).unwrap();
            let sent = request.metadata().get("authorization").unwrap();
            assert_eq!(sent, format!("Bearer {token}").as_str());
        }
        std::fs::remove_file(path).unwrap();
    }
}
