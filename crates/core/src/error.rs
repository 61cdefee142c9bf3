//! The error type of the crate.
//!
//! An error says what the caller can do next: the [`Kind`] decides how to react, the [`Reason`] names the exact cause
//! for programs, and the message describes it for people. The edges add status codes. The cause of a server fault is
//! the error's source, which is logged and never returned to the caller.

mod all;

use std::{borrow::Cow, collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

pub use self::all::{All, each};
use crate::escape::escaped;

/// When to retry after an error that only an operator can fix.
const OPERATOR_DELAY: Duration = Duration::from_secs(30);

/// The result of an operation that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Fix the request. The same request fails again.
    InvalidArgument,
    /// Continue from `expected_offset` in the metadata.
    OutOfRange,
    /// The resource does not exist, or belongs to another owner.
    NotFound,
    /// The phase or the content of the upload does not allow the request. The reason says what must change first.
    FailedPrecondition,
    /// Another stream has taken over the upload. Do not retry.
    Aborted,
    /// The bytes do not match their digest.
    DataLoss,
    /// Slow down, and retry after the delay in the error.
    ResourceExhausted,
    /// Resume with backoff.
    Unavailable,
    /// The caller's deadline has passed. Resume.
    DeadlineExceeded,
    /// The caller is authenticated, but not allowed to do this.
    PermissionDenied,
    /// The caller must authenticate.
    Unauthenticated,
    /// This gateway does not offer the operation.
    Unimplemented,
    /// The client has disconnected and does not receive this error.
    Cancelled,
    /// A fault of the gateway or of a service that it needs.
    Internal,
}

/// The exact cause, stable for programs: the `reason` of `google.rpc.ErrorInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The value of a field is invalid. The violations name the field.
    InvalidField,
    /// The resume token is forged, expired, or belongs to another owner or another upload. Open without it.
    InvalidToken,
    /// A message is not allowed at this point of the stream.
    InvalidSequence,
    /// The request is larger than the call accepts.
    MessageTooLarge,
    /// A chunk does not match its CRC32C, or the store received other bytes than were sent.
    ChecksumMismatch,
    /// The first chunk does not start at a valid offset, or a chunk leaves a gap. Continue at `expected_offset`.
    WrongOffset,
    /// The state store lost the record or acknowledged parts. Open again with the resume token, or continue at the
    /// lower `expected_offset`.
    StateLost,
    /// More bytes were sent than declared.
    SizeExceeded,
    /// The file is larger than the largest file that this gateway accepts.
    FileTooLarge,
    /// There is no such upload.
    UploadNotFound,
    /// The file of the upload has moved to another upload.
    UploadMoved,
    /// No storage with this id is configured.
    StorageNotFound,
    /// The upload is complete, aborted, or being committed.
    WrongPhase,
    /// Parts are missing. The metadata names them.
    Incomplete,
    /// Bytes that were sent again differ from those that were sent before.
    PrefixMismatch,
    /// The upload has no digest of the whole file, so `file_id` cannot be checked.
    DigestUnknown,
    /// The MD5 of the whole file does not match `file_id`.
    DigestMismatch,
    /// The store has another part under a number than the recorded one.
    PartReplaced,
    /// The store has another object under the key than the recorded one.
    ObjectChanged,
    /// The store does not know the upload's session any more.
    SessionLost,
    /// The client has not created the store's session yet, or has not reported its id.
    SessionNotStarted,
    /// The store has parts in another session of the upload.
    SessionInUse,
    /// The storage lacks a feature that the upload asks for.
    NotSupported,
    /// The object is archived, and must be restored before it can be read.
    ObjectArchived,
    /// The upload was created without the size of the file.
    SizeUnknown,
    /// A newer stream has opened this upload.
    TakenOver,
    /// Another stream is active on this upload, and the request does not allow a takeover.
    WriterActive,
    /// The upload has larger parts than the memory budget of this gateway allows.
    BudgetTooSmall,
    /// The stream was silent for longer than the idle time-out.
    IdleTimeout,
    /// The stream was slower than the minimum rate for a whole window.
    TooSlow,
    /// The caller's deadline has passed.
    DeadlineExceeded,
    /// The gateway has no free memory, or is at its limit of concurrent streams.
    Overloaded,
    /// The state store is unavailable.
    StateUnavailable,
    /// The state store has no memory for another record.
    StateFull,
    /// The blob store is unavailable.
    StoreUnavailable,
    /// The gateway is shutting down.
    Draining,
    /// The stream has reached the maximum age. Resume over a new connection.
    MoveOn,
    /// An operator has stopped new uploads.
    UploadsStopped,
    /// The caller asked for this fault in a header.
    InjectedFault,
    /// The call has no credential.
    CredentialMissing,
    /// The credential has expired. Another one may be accepted.
    CredentialExpired,
    /// The credential is not accepted.
    CredentialInvalid,
    /// The keys of the issuer of a token cannot be fetched.
    IssuerUnavailable,
    /// The roles of the caller do not allow the call.
    RoleMissing,
    /// The operation is not offered.
    NotOffered,
    /// The client disconnected before it finished.
    ClientGone,
    /// A fault on the server's side.
    Internal,
}

/// One invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field as in the proto, such as `file.file_name`.
    pub field: Cow<'static, str>,
    /// What is wrong with it, for people.
    pub description: String,
}

/// An error: its kind, its reason, and details for programs and for people.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    reason: Reason,
    message: String,
    metadata: BTreeMap<&'static str, String>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    operator_code: Option<String>,
    is_congestion: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

// === impl Error ===

impl Error {
    /// An error of `kind` with the cause `reason`. `message` is for people and starts in lower case. It may contain text
    /// of the caller: what would break a line is escaped, here and in all details.
    pub fn new(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            reason,
            message: escaped(&message.into()).into_owned(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            operator_code: None,
            is_congestion: false,
            source: None,
        }))
    }

    /// A request with an invalid `field`.
    pub fn invalid(field: impl Into<Cow<'static, str>>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        let description = escaped(&description).into_owned();
        let mut error = Self::new(
            Kind::InvalidArgument,
            Reason::InvalidField,
            format!("{field}: {description}"),
        );
        error.0.violations.push(Violation { field, description });
        error
    }

    /// A message that is not allowed at this point of the stream.
    pub fn sequence(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, Reason::InvalidSequence, message)
    }

    /// A chunk starts at `provided`, but the upload continues at `expected`. Both are in bytes.
    pub fn wrong_offset(expected: u64, provided: u64) -> Self {
        Self::new(
            Kind::OutOfRange,
            Reason::WrongOffset,
            format!("the next expected byte is {expected}, but the chunk starts at {provided}"),
        )
        .with("expected_offset", expected)
        .with("provided_offset", provided)
    }

    /// The upload does not exist or belongs to another owner.
    pub fn upload_not_found(upload_id: impl fmt::Display) -> Self {
        Self::new(
            Kind::NotFound,
            Reason::UploadNotFound,
            format!("no upload {upload_id}"),
        )
        .with("upload_id", upload_id)
    }

    /// The current state of the upload does not allow the request.
    pub fn precondition(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, reason, message)
    }

    /// The state store did not answer. Retryable.
    pub fn state_unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Kind::Unavailable,
            Reason::StateUnavailable,
            "the state store is unavailable",
        )
        .caused_by(source)
    }

    /// The state store has no memory for another record or part. Retryable: uploads that are deleted or expire make room.
    pub fn state_full(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Kind::ResourceExhausted,
            Reason::StateFull,
            "the state store is full; delete uploads, or retry later",
        )
        .caused_by(source)
    }

    /// The blob store did not answer, or throttled the request. Retryable.
    pub fn store_unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Kind::Unavailable,
            Reason::StoreUnavailable,
            "the blob store is unavailable",
        )
        .caused_by(source)
    }

    /// The blob store refuses requests for a reason that only an operator can fix: credentials, permissions, the bucket.
    /// `code` is the store's error code, for the operator. The caller can resume later: nothing is lost.
    pub fn for_operator(
        code: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let mut error = Self::store_unavailable(source).retry_after(OPERATOR_DELAY);
        error.0.operator_code = Some(code.into());
        error
    }

    /// A fault of the server. `context` is for the log.
    pub fn internal(
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(Kind::Internal, Reason::Internal, context).caused_by(source)
    }

    /// A fault of the server that has no underlying error.
    pub fn fault(context: impl Into<String>) -> Self {
        Self::new(Kind::Internal, Reason::Internal, context)
    }

    /// Sets the store's error code, if only an operator can fix the cause.
    #[must_use]
    pub fn coded(mut self, code: Option<String>) -> Self {
        self.0.operator_code = code;
        self
    }

    /// Adds a detail for programs: an entry in the `metadata` of `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        let value = escaped(&value.to_string()).into_owned();
        self.0.metadata.insert(key, value);
        self
    }

    /// Replaces the reason with a more exact one.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.0.reason = reason;
        self
    }

    /// Sets the delay after which the caller should retry.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Sets the underlying error, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says that the store throttled the request or did not keep up with it: fewer requests at a time may succeed.
    #[must_use]
    pub fn congested(mut self) -> Self {
        self.0.is_congestion = true;
        self
    }

    /// Whether the store throttled the request or did not keep up with it.
    pub fn is_congestion(&self) -> bool {
        self.0.is_congestion
    }

    /// What the caller can do next.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The exact cause.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Details for programs, by key.
    pub fn metadata(&self) -> &BTreeMap<&'static str, String> {
        &self.0.metadata
    }

    /// The invalid fields of the request.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The delay after which the caller should retry, if it is known.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The store's error code, if only an operator can fix the cause.
    pub fn operator_code(&self) -> Option<&str> {
        self.0.operator_code.as_deref()
    }

    /// The chain of causes as text for the log, outermost first.
    pub fn causes(&self) -> String {
        let first = self.source();
        let chain = std::iter::successors(first, |&cause| cause.source());
        let chain: Vec<String> = chain.map(ToString::to_string).collect();
        chain.join(": ")
    }

    /// Whether the same call may succeed if it is repeated later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), Kind::Unavailable | Kind::ResourceExhausted)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
