//! Whether a server answers at an address as Redis does, with or without TLS.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use redis::{ConnectionAddr, IntoConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::config::RedisUrl;
use crate::{authorities::client_config, unreachable::Unreachable};

/// How long each step may take.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Where a server is, and whom to trust.
struct Address {
    host: String,
    port: u16,
    ca_file: Option<PathBuf>,
}

/// Connects to the server of `url`, and sends it a `PING`.
///
/// # Errors
/// Why it does not answer as Redis does, and whether it would with or without TLS.
pub(super) async fn reach(url: &RedisUrl, ca_file: Option<&Path>) -> Result<(), Unreachable> {
    let info = url.expose().into_connection_info();
    let info = info.map_err(|error| Unreachable::Other(error.to_string()))?;
    let (host, port, uses_tls) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
        ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
        // The error of the connection has the cause.
        _ => return Ok(()),
    };
    let address = Address {
        host,
        port,
        ca_file: ca_file.map(Path::to_owned),
    };
    if uses_tls {
        let problem = match address.tls().await {
            Ok(_) => return Ok(()),
            Err(problem) => problem,
        };
        let may_be_plain = matches!(
            problem,
            Unreachable::NeedsPlain | Unreachable::Other(_) | Unreachable::Silent
        );
        return Err(match may_be_plain && address.plain().await.is_ok() {
            true => Unreachable::NeedsPlain,
            false => problem,
        });
    }
    let problem = match address.plain().await {
        Ok(()) => return Ok(()),
        Err(problem @ Unreachable::Other(_)) => problem,
        Err(problem) => return Err(problem),
    };
    Err(match address.tls().await {
        Ok(_) => Unreachable::NeedsTls,
        Err(refused) if refused.is_of_certificate() => Unreachable::NeedsTls,
        Err(_) => problem,
    })
}

// === impl Address ===

impl Address {
    async fn tcp(&self) -> Result<TcpStream, Unreachable> {
        let addresses = tokio::net::lookup_host((&*self.host, self.port)).await;
        let addresses: Vec<_> = addresses.map_err(|_| Unreachable::UnknownHost)?.collect();
        within(TcpStream::connect(&*addresses)).await
    }

    async fn tls(&self) -> Result<TlsStream<TcpStream>, Unreachable> {
        let stream = self.tcp().await?;
        let config = client_config(self.ca_file.as_deref());
        let config = config.map_err(|error| Unreachable::Other(error.to_string()))?;
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|error| Unreachable::Other(error.to_string()))?;
        within(TlsConnector::from(config).connect(name, stream)).await
    }

    async fn plain(&self) -> Result<(), Unreachable> {
        let mut stream = self.tcp().await?;
        within(ping(&mut stream)).await
    }
}

/// Every Redis answers this, also before a password.
async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"PING\r\n").await?;
    let mut first = [0];
    stream.read_exact(&mut first).await?;
    match first {
        [b'+' | b'-'] => Ok(()),
        _ => Err(io::Error::other("the server does not answer as Redis does")),
    }
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, Unreachable> {
    match timeout(TIME_LIMIT, step).await {
        Ok(done) => done.map_err(|error| Unreachable::of(&error)),
        Err(_) => Err(Unreachable::Silent),
    }
}
