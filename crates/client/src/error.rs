//! Errors, and which of them a client resumes after.

use std::{collections::HashMap, io, path::PathBuf, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{connect::ConnectError, proto::v1::ErrorReason};

/// The entry in the metadata of an INTERNAL error that finds its cause in the log of the gateway.
const REQUEST_ID: &str = "request_id";

/// Why a call failed.
///
/// # Examples
/// ```
/// use upload_gateway_client::{ClientError, proto::v1::ErrorReason};
///
/// /// Whether another program uploads the same file at the moment.
/// fn is_busy(error: &ClientError) -> bool {
///     matches!(error, ClientError::Refused(refusal) if refusal.reason == Some(ErrorReason::WriterActive))
/// }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is invalid.
    #[error("{server:?} is not a valid server address: {problem}")]
    InvalidServer {
        /// The address.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No gateway can be called at the address.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The gateway answered with an error, or the connection failed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store answered a signed request with an error, or the connection failed.
    #[error(transparent)]
    Store(#[from] StoreRefusal),
    /// Nothing more was committed within the retry timeout.
    #[error("no progress for {} s", retry_timeout.as_secs())]
    NoProgress {
        /// The upload, which can be resumed later. None if it was not created.
        upload_id: Option<String>,
        /// The retry timeout.
        retry_timeout: Duration,
        /// The last failure.
        source: Box<Self>,
    },
    /// The source could not be read.
    #[error("read the source")]
    Source(#[from] io::Error),
    /// What the bytes of a download are written to has failed.
    #[error("write the file")]
    Output(#[source] io::Error),
    /// A file on this machine could not be written.
    #[error("{action} {}", path.display())]
    File {
        /// What was to be done, a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The resume store failed, or another process sends this file.
    #[error("use what was saved of earlier uploads")]
    Resume(#[source] io::Error),
    /// The gateway needs bytes of a pipe that are no longer in memory.
    #[error(
        "the gateway needs the bytes from {wanted} again, but only those from {kept_from} are in memory"
    )]
    NotRewindable {
        /// The offset that the gateway needs.
        wanted: u64,
        /// The first offset that is in memory.
        kept_from: u64,
    },
    /// The file changed while it was sent. Its upload is not complete, and cannot be resumed with the changed file.
    #[error("the file changed while it was sent: {change}")]
    FileChanged {
        /// What changed.
        change: String,
    },
    /// The file is not the one that the upload was begun with. Nothing was sent; the right file can still resume it.
    #[error("the file is not the one that {upload_id} was begun with: {difference}")]
    OtherFile {
        /// The upload.
        upload_id: String,
        /// How the file differs.
        difference: String,
    },
    /// The object is not the file.
    #[error("the object of {upload_id} has {what} {found}, the file has {expected}")]
    Mismatch {
        /// The upload.
        upload_id: String,
        /// What differs: `size` or `MD5`.
        what: &'static str,
        /// The file's.
        expected: String,
        /// The object's.
        found: String,
    },
    /// Another client has changed a direct upload, or the gateway lost it and created a new one.
    #[error("{upload_id} was changed by another client")]
    Changed {
        /// The upload before the change.
        upload_id: String,
    },
    /// The gateway or the store sent a response that the API does not allow.
    #[error("unexpected response: {0}")]
    Protocol(String),
}

/// An error that the gateway answered with, or a failure of the connection to it.
///
/// # Examples
/// ```
/// use tonic::{Code, Status};
/// use upload_gateway_client::Refusal;
///
/// let refusal = Refusal::from(Status::new(Code::Unavailable, "connection reset"));
/// assert_eq!((refusal.code, refusal.reason), (Code::Unavailable, None));
/// assert_eq!(refusal.to_string(), "connection reset");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{}", in_brackets(.reason_name), describe_request(.metadata))]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The reason. Its comments say what to do next. None if the connection failed, or if this version of the client does
    /// not know the reason.
    pub reason: Option<ErrorReason>,
    /// The reason as the gateway sent it, `UPLOAD_NOT_FOUND`. Empty if the connection failed.
    pub reason_name: String,
    /// The message, for people.
    pub message: String,
    /// `metadata` of `google.rpc.ErrorInfo`: facts for programs, for example `committed_size`.
    pub metadata: HashMap<String, String>,
    /// How long to wait before the next try, if the gateway knows.
    pub retry_delay: Option<Duration>,
}

/// A store's error response to a signed request, or a failure of the connection to it. Contains no signed URL.
///
/// # Examples
/// ```
/// use upload_gateway_client::StoreRefusal;
///
/// let refusal = StoreRefusal {
///     status: Some(403),
///     code: "AccessDenied".into(),
///     message: "Request has expired".into(),
/// };
/// assert_eq!(refusal.to_string(), "the store answered 403 AccessDenied: Request has expired");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe_response(.status, .code, .message))]
pub struct StoreRefusal {
    /// The HTTP status. None: no response arrived.
    pub status: Option<u16>,
    /// The store's error code, `NoSuchUpload`. Empty if there is none.
    pub code: String,
    /// The store's message, or why no response arrived.
    pub message: String,
}

// === impl ClientError ===

impl ClientError {
    /// A response that the API does not allow.
    pub(crate) fn protocol(problem: impl Into<String>) -> Self {
        Self::Protocol(problem.into())
    }

    /// Whether opening the upload again can succeed, as the comments of [`ErrorReason`] say. For a failed connection it
    /// can.
    pub fn is_resumable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_resumable(),
            Self::Store(refusal) => refusal.is_retryable(),
            Self::InvalidServer { .. }
            | Self::Connect(_)
            | Self::NoProgress { .. }
            | Self::Source(_)
            | Self::Output(_)
            | Self::File { .. }
            | Self::Resume(_)
            | Self::NotRewindable { .. }
            | Self::FileChanged { .. }
            | Self::OtherFile { .. }
            | Self::Mismatch { .. }
            | Self::Changed { .. }
            | Self::Protocol(_) => false,
        }
    }

    /// How long to wait before the next try, if the gateway knows.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_delay,
            _ => None,
        }
    }

    /// How much of the upload is committed, in bytes, if the gateway said it.
    pub(crate) fn committed_size(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => refusal.metadata.get("committed_size")?.parse().ok(),
            _ => None,
        }
    }

    /// The gateway's reason. None for any other failure.
    pub(crate) fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Refused(refusal) => refusal.reason,
            _ => None,
        }
    }
}

#[cfg(feature = "direct")]
impl ClientError {
    /// The HTTP status of the store's response.
    pub(crate) fn store_status(&self) -> Option<u16> {
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
    /// A stream that ended without its last message.
    pub(crate) fn ended_early() -> Self {
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
        // Every error of the gateway has a reason. Without one the connection failed, or a proxy answered.
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
            Code::ResourceExhausted => self.reason != Some(ErrorReason::MessageTooLarge),
            Code::Unavailable | Code::DeadlineExceeded => true,
            // The first response to the next open has the offset.
            Code::OutOfRange => matches!(
                self.reason,
                Some(ErrorReason::WrongOffset | ErrorReason::StateLost)
            ),
            Code::DataLoss => self.reason == Some(ErrorReason::ChecksumMismatch),
            // The next open has no token. Only an upload that the state store lost needs one.
            Code::InvalidArgument => self.reason == Some(ErrorReason::InvalidToken),
            _ => false,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let (reason_name, mut metadata) =
            info.map_or_else(Default::default, |info| (info.reason, info.metadata));
        if let Some(id) = request_id(&status).filter(|_| status.code() == Code::Internal) {
            metadata.entry(REQUEST_ID.into()).or_insert(id);
        }
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

#[cfg(feature = "direct")]
impl StoreRefusal {
    /// No response arrived.
    pub(crate) fn no_response(message: impl Into<String>) -> Self {
        Self {
            status: None,
            code: String::new(),
            message: message.into(),
        }
    }
}

impl StoreRefusal {
    /// Whether the same request with a fresh signature may succeed later.
    fn is_retryable(&self) -> bool {
        match self.status {
            // 200: S3 sends errors that occur after the status in the body.
            None | Some(200 | 408 | 429 | 500..) => true,
            // S3's code for a connection on which no bytes arrived.
            Some(400) => self.code == "RequestTimeout",
            Some(_) => false,
        }
    }
}

/// The status's message. For a failed connection also the innermost cause, which the message does not contain.
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

fn describe_response(status: &Option<u16>, code: &str, message: &str) -> String {
    let mut text = match status {
        Some(status) => format!("the store answered {status}"),
        None => "the store did not answer".into(),
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

/// The id of a failed call, from the details of its error or from its response.
fn request_id(status: &Status) -> Option<String> {
    let detail = status
        .get_details_request_info()
        .map(|info| info.request_id);
    let sent = || {
        Some(
            status
                .metadata()
                .get("x-request-id")?
                .to_str()
                .ok()?
                .to_owned(),
        )
    };
    detail.or_else(sent)
}

/// The id that finds the cause of a server fault in the log of the gateway.
fn describe_request(metadata: &HashMap<String, String>) -> String {
    match metadata.get(REQUEST_ID) {
        None => String::new(),
        Some(id) => format!(", request id {id}"),
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
    fn code_and_reason_decide_whether_to_resume() {
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
    fn a_server_fault_is_shown_with_its_request_id() {
        let metadata = HashMap::from([("request_id".to_owned(), "00c0ffee".to_owned())]);
        let details = ErrorDetails::with_error_info("INTERNAL", "uploadgateway.v1", metadata);
        let status = Status::with_error_details(Code::Internal, "no", details);
        let error = ClientError::from(status);
        assert_eq!(error.to_string(), "no [INTERNAL], request id 00c0ffee");

        let details = ErrorDetails::with_request_info("00c0ffee", "");
        let detailed = Status::with_error_details(Code::Internal, "no", details);
        let mut bare = Status::new(Code::Internal, "no");
        let id = "00c0ffee".parse().unwrap();
        bare.metadata_mut().insert("x-request-id", id);
        for status in [detailed, bare] {
            let error = ClientError::from(status);
            assert_eq!(error.to_string(), "no, request id 00c0ffee");
        }
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
