//! The other end of a connection.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;

/// The other end of a connection. In the extensions of every request, in an `Arc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address: that of a proxy, if there is one.
    pub(crate) address: SocketAddr,
    /// The certificate that it has presented, which an accepted authority has issued, and those between them. Empty without.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}
