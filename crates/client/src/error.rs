//! What stops a client, and what only delays it.

use std::{collections::HashMap, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::proto::v1::ErrorReason;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is none.
    #[error("{server:?} is no server's address: {problem}")]
    InvalidServer {
        /// The address.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The gateway answered with an error, or could not be reached.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store did not carry out a signed request, or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreRefusal),
    /// Nothing more was committed for too long.
    #[error("gave up after {} s without progress", retry_timeout.as_secs())]
    GaveUp {
        /// The upload, which may be resumed later.
        upload_id: Option<String>,
        /// How long it was tried.
        retry_timeout: Duration,
        /// The last failure.
        source: Box<Self>,
    },
    /// The source could not be read.
    #[error("read the source")]
    Source(#[from] io::Error),
    /// The gateway needs bytes again that are gone.
    #[error(
        "the gateway needs the bytes from {wanted} again, and the input is kept from {kept_from} only"
    )]
    NotRewindable {
        /// What is needed.
        wanted: u64,
        /// What there still is.
        kept_from: u64,
    },
    /// The object is not the file.
    #[error("the object of {upload_id} has {what} {found}, the file has {expected}")]
    Mismatch {
        /// The upload.
        upload_id: String,
        /// What differs.
        what: &'static str,
        /// The file's.
        expected: String,
        /// The object's.
        found: String,
    },
    /// Somebody else went on with the upload, or the gateway lost it and began a new one.
    #[error("{upload_id} is not as it was before")]
    Changed {
        /// The upload as it was.
        upload_id: String,
    },
    /// The gateway answered what makes no sense.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

/// An error that the gateway answered with, or that the connection ended with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", in_brackets(.reason_name))]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The reason, which says what to do next. None if the connection failed, or if this client does not know the reason.
    pub reason: Option<ErrorReason>,
    /// The reason as the gateway sent it, `UPLOAD_NOT_FOUND`. Empty if the connection failed.
    pub reason_name: String,
    /// The sentence for people.
    pub message: String,
    /// The `metadata` of the answer's `ErrorInfo`.
    pub metadata: HashMap<String, String>,
    /// When to try again, where the gateway says so.
    pub retry_delay: Option<Duration>,
}

/// The store's answer to a signed request that it did not carry out, or the failure to reach it. Names no signed URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", in_words(.status, .code, .message))]
pub struct StoreRefusal {
    /// The HTTP status. None: there was no answer.
    pub status: Option<u16>,
    /// The store's code, `NoSuchUpload`. Empty where it gave none.
    pub code: String,
    /// The store's sentence, or why it was not reached.
    pub message: String,
}

// === impl ClientError ===

impl ClientError {
    /// An answer that makes no sense.
    pub(super) fn protocol(problem: impl Into<String>) -> Self {
        Self::Protocol(problem.into())
    }

    /// Whether the upload can go on from what is committed, by the error table of `upload.proto`.
    pub fn is_resumable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_resumable(),
            Self::Store(refusal) => refusal.is_retryable(),
            Self::InvalidServer { .. }
            | Self::GaveUp { .. }
            | Self::Source(_)
            | Self::NotRewindable { .. }
            | Self::Mismatch { .. }
            | Self::Changed { .. }
            | Self::Protocol(_) => false,
        }
    }

    /// When the gateway wants to be asked again, where it says so.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_delay,
            _ => None,
        }
    }

    /// The reason that the gateway gave.
    pub(super) fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Refused(refusal) => refusal.reason,
            _ => None,
        }
    }

    /// The HTTP status that the store answered with, if it did.
    pub(super) fn store_status(&self) -> Option<u16> {
        match self {
            Self::Store(refusal) => refusal.status,
            _ => None,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(status.into())
    }
}

// === impl Refusal ===

impl Refusal {
    /// A stream that ended before its end.
    pub(super) fn ended_early() -> Self {
        Self {
            code: Code::Unavailable,
            reason: None,
            reason_name: String::new(),
            message: "the gateway ended the stream early".into(),
            metadata: HashMap::new(),
            retry_delay: None,
        }
    }

    fn is_resumable(&self) -> bool {
        // Only the gateway gives reasons: without one the connection, or a proxy on the way, has failed.
        if self.reason_name.is_empty() {
            return matches!(
                self.code,
                Code::Unavailable
                    | Code::Unknown
                    | Code::Cancelled
                    | Code::Internal
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
            );
        }
        match self.code {
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
            // The upload is opened again, and says itself where it goes on.
            Code::OutOfRange => matches!(
                self.reason,
                Some(ErrorReason::WrongOffset | ErrorReason::StateLost)
            ),
            Code::DataLoss => self.reason == Some(ErrorReason::ChecksumMismatch),
            // The token is dropped; it is needed only for what the state store lost.
            Code::InvalidArgument => self.reason == Some(ErrorReason::InvalidToken),
            _ => false,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let (reason_name, metadata) =
            info.map_or_else(Default::default, |info| (info.reason, info.metadata));
        let retry_delay = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay);
        Self {
            code: status.code(),
            message: describe(&status),
            reason: ErrorReason::from_name(&reason_name),
            reason_name,
            metadata,
            retry_delay,
        }
    }
}

// === impl StoreRefusal ===

impl StoreRefusal {
    /// The store was not reached, or its answer did not come through.
    pub(super) fn unreached(message: impl Into<String>) -> Self {
        Self {
            status: None,
            code: String::new(),
            message: message.into(),
        }
    }

    /// Whether the same request, signed anew, may succeed later.
    fn is_retryable(&self) -> bool {
        match self.status {
            // An error in the body of a 200: S3 found out only after it had begun to answer.
            None | Some(200 | 408 | 429 | 500..) => true,
            // S3's word for a connection on which nothing came for too long.
            Some(400) => self.code == "RequestTimeout",
            Some(_) => false,
        }
    }
}

/// The status's message; for a failed connection also the cause, which the message leaves out.
fn describe(status: &Status) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error);
        cause = error.source();
    }
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    match innermost {
        Some(innermost) => format!("{message}: {innermost}"),
        None => message.to_owned(),
    }
}

fn in_words(status: &Option<u16>, code: &str, message: &str) -> String {
    let mut text = match status {
        Some(status) => format!("the store answered {status}"),
        None => "the store was not reached".into(),
    };
    for (separator, more) in [(" ", code), (": ", message)] {
        if !more.is_empty() {
            text.push_str(separator);
            text.push_str(more);
        }
    }
    text
}

fn in_brackets(reason_name: &str) -> String {
    match reason_name {
        "" => String::new(),
        name => format!(" [{name}]"),
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn answered(code: Code, reason: &str) -> ClientError {
        let details = ErrorDetails::with_error_info(reason, "uploadgateway.v1", HashMap::new());
        Status::with_error_details(code, "no", details).into()
    }

    #[test]
    fn the_error_table_decides_what_is_resumed() {
        for (code, reason) in [
            (Code::Unavailable, "STORE_UNAVAILABLE"),
            (Code::ResourceExhausted, "OVERLOADED"),
            (Code::OutOfRange, "WRONG_OFFSET"),
            (Code::OutOfRange, "STATE_LOST"),
            (Code::DataLoss, "CHECKSUM_MISMATCH"),
            (Code::Unavailable, "STATE_LOST"),
            (Code::InvalidArgument, "INVALID_TOKEN"),
            (Code::Unavailable, "A_NEWER_REASON"),
        ] {
            assert!(answered(code, reason).is_resumable(), "{reason}");
        }
        for (code, reason) in [
            (Code::Aborted, "TAKEN_OVER"),
            (Code::OutOfRange, "SIZE_EXCEEDED"),
            (Code::DataLoss, "DIGEST_MISMATCH"),
            (Code::NotFound, "UPLOAD_NOT_FOUND"),
            (Code::FailedPrecondition, "WRONG_PHASE"),
            (Code::InvalidArgument, "INVALID_FIELD"),
            (Code::Internal, "INTERNAL"),
            (Code::FailedPrecondition, "A_NEWER_REASON"),
        ] {
            assert!(!answered(code, reason).is_resumable(), "{reason}");
        }
    }

    #[test]
    fn an_unknown_reason_is_shown_as_it_was_sent() {
        let error = answered(Code::Unavailable, "A_NEWER_REASON");
        assert_eq!(error.reason(), None);
        assert_eq!(error.to_string(), "no [A_NEWER_REASON]");
    }

    #[test]
    fn a_broken_connection_is_resumed() {
        for code in [
            Code::Unavailable,
            Code::Unknown,
            Code::Cancelled,
            Code::Internal,
        ] {
            assert!(
                ClientError::from(Status::new(code, "h2")).is_resumable(),
                "{code}"
            );
        }
    }
}
