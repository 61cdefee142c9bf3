//! Why no server answers at an address, for operators.

use std::{error::Error, io, iter};

use rustls::{CertificateError, Error as TlsError};

/// Why no server answers at an address as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    /// No program listens at the port.
    #[error("no server listens there (connection refused)")]
    Refused,
    /// The name has no address.
    #[error("the host name cannot be resolved")]
    UnknownHost,
    /// Nothing answers.
    #[error("the server does not answer in time")]
    Silent,
    /// The certificate of the server is of an authority that is not known.
    #[error("the authority of the server's certificate is not trusted")]
    Untrusted,
    /// The certificate of the server is for other names.
    #[error("the server's certificate is for another host name")]
    OtherName,
    /// The certificate of the server has expired, or is not valid yet.
    #[error(
        "the server's certificate has expired or is not valid yet, by the clock of this machine"
    )]
    Expired,
    /// TLS was expected.
    #[error("the server does not use TLS")]
    NeedsPlain,
    /// TLS was not expected.
    #[error("the server requires TLS")]
    NeedsTls,
    /// Something else, as the system says it.
    #[error("{0}")]
    Other(String),
}

// === impl Unreachable ===

impl Unreachable {
    /// What the causes of a failed connection say.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let causes = || iter::successors(Some(error), |error| (*error).source());
        let known = causes().find_map(|cause| {
            Self::of_cause(cause)
                // The connector has no type for it.
                .or_else(|| (cause.to_string() == "dns error").then_some(Self::UnknownHost))
        });
        let last = || causes().last().map(ToString::to_string);
        known.unwrap_or_else(|| Self::Other(last().unwrap_or_default()))
    }

    /// Whether TLS was spoken, and the certificate was refused.
    pub(crate) fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Untrusted | Self::OtherName | Self::Expired)
    }

    /// What one cause says. An error of input or output hides the error that it was made of from the chain of causes.
    fn of_cause(cause: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(tls) = cause.downcast_ref() {
            return Self::of_tls(tls);
        }
        let io = cause.downcast_ref::<io::Error>()?;
        let inner = io.get_ref().and_then(|inner| Self::of_cause(inner));
        inner.or_else(|| Self::of_io(io.kind()))
    }

    fn of_io(kind: io::ErrorKind) -> Option<Self> {
        match kind {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::TimedOut => Some(Self::Silent),
            _ => None,
        }
    }

    fn of_tls(error: &TlsError) -> Option<Self> {
        match error {
            TlsError::InvalidMessage(_) => Some(Self::NeedsPlain),
            TlsError::InvalidCertificate(problem) => Some(match problem {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                _ => Self::Other(format!("the server's certificate is not valid: {problem}")),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_found_inside_of_other_errors() {
        let tls = |problem| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                TlsError::InvalidCertificate(problem),
            )
        };
        for (error, expected) in [
            (
                io::ErrorKind::ConnectionRefused.into(),
                Unreachable::Refused,
            ),
            (tls(CertificateError::UnknownIssuer), Unreachable::Untrusted),
            (tls(CertificateError::Expired), Unreachable::Expired),
            (
                tls(CertificateError::NotValidForName),
                Unreachable::OtherName,
            ),
            (
                io::Error::other(tls(CertificateError::UnknownIssuer)),
                Unreachable::Untrusted,
            ),
            (io::Error::other("dns error"), Unreachable::UnknownHost),
            (io::Error::other("odd"), Unreachable::Other("odd".into())),
        ] {
            assert_eq!(Unreachable::of(&error), expected);
        }
    }
}
