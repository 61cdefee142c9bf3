//! Why a call is not authenticated.

use std::time::Duration;

use upload_gateway_core::error::{Error, Kind, Reason};

/// Why a call is not authenticated. Its caller learns only the kind; the cause is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rejection {
    /// There is no credential.
    Missing,
    /// The credential was valid before.
    Expired,
    /// The credential is not accepted, for this cause.
    Invalid(String),
    /// It cannot be checked now, for this cause. To be tried again after that time.
    Unavailable(String, Duration),
}

// === impl Rejection ===

impl Rejection {
    /// A credential that is not accepted.
    pub(super) fn invalid(cause: impl Into<String>) -> Self {
        Self::Invalid(cause.into())
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let refuse = |reason, message| Self::new(Kind::Unauthenticated, reason, message);
        match rejection {
            Rejection::Missing => refuse(
                Reason::CredentialMissing,
                "the call has no credential; send authorization: Bearer TOKEN, x-api-key, or a client certificate",
            ),
            Rejection::Expired => refuse(
                Reason::CredentialExpired,
                "the credential has expired; fetch another one",
            ),
            // One sentence for all causes: they would help an attacker.
            Rejection::Invalid(cause) => {
                refuse(Reason::CredentialInvalid, "the credential is not accepted").caused_by(cause)
            }
            Rejection::Unavailable(cause, delay) => Self::new(
                Kind::Unavailable,
                Reason::IssuerUnavailable,
                "the credential cannot be checked now; retry later",
            )
            .retry_after(delay)
            .caused_by(cause),
        }
    }
}
