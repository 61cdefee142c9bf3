//! The one error type of the crate, by kind.
//!
//! An error says what its reader can do next: the [`Kind`] decides the reaction, the [`Reason`] names the exact cause
//! for programs, the message names it for people. Status codes belong to the edges; the cause of a server
//! fault travels as the error's source, into the log and never to the caller.

use std::{borrow::Cow, collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

/// Result of everything that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Mend the request; the same one fails again.
    InvalidArgument,
    /// Continue from the expected offset that the error carries.
    OutOfRange,
    /// It does not exist, or is not the caller's to see.
    NotFound,
    /// The upload's phase or content forbids it; the reason says what must change first.
    FailedPrecondition,
    /// Another writer took the upload over; do not retry.
    Aborted,
    /// The bytes do not have the digest that was promised.
    DataLoss,
    /// Slow down and retry after the delay the error carries.
    ResourceExhausted,
    /// Resume with back-off.
    Unavailable,
    /// The time that the caller gave the call is over; resume.
    DeadlineExceeded,
    /// The caller is known and may not.
    PermissionDenied,
    /// The caller must identify itself.
    Unauthenticated,
    /// This gateway does not offer the call.
    Unimplemented,
    /// The client went away; nobody reads this.
    Cancelled,
    /// A fault of the gateway or of what it depends on.
    Internal,
}

/// The exact cause, stable for programs: the `reason` of `google.rpc.ErrorInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field's value is refused; the violations name it.
    InvalidField,
    /// The resume token is forged, expired, somebody else's or of another upload: open without it.
    InvalidToken,
    /// A message came out of turn in the stream.
    InvalidSequence,
    /// A message's CRC32C is not that of its data, or the store received other bytes than were sent.
    ChecksumMismatch,
    /// The first offset, or a gap: continue at `expected_offset`.
    WrongOffset,
    /// The state store lost the record or acknowledged parts: open again with the resume token, or continue at the lower
    /// `expected_offset`.
    StateLost,
    /// The bytes go beyond the declared size.
    SizeExceeded,
    /// The file is larger than this gateway takes.
    FileTooLarge,
    /// No such upload.
    UploadNotFound,
    /// No storage of that name is configured.
    StorageNotFound,
    /// The upload was finished, aborted or is being committed.
    WrongPhase,
    /// Parts are missing; the metadata names them.
    Incomplete,
    /// What was sent again differs from what was sent before.
    PrefixMismatch,
    /// The upload keeps no whole-file digest, so `file_id` cannot be checked.
    DigestUnknown,
    /// The whole file's MD5 is not the promised `file_id`.
    DigestMismatch,
    /// The store holds other bytes under a part's number than were recorded.
    PartReplaced,
    /// The store no longer knows the upload's session.
    SessionLost,
    /// The client has not begun the store's session yet, or not said its name.
    SessionNotStarted,
    /// The store has parts under another session of the upload.
    SessionInUse,
    /// The upload was begun without its file's size.
    SizeUnknown,
    /// A newer stream opened this upload.
    TakenOver,
    /// Another stream writes to this upload, and may not be ended.
    WriterActive,
    /// The stream sent nothing for too long.
    IdleTimeout,
    /// The stream sent too little for too long.
    TooSlow,
    /// The time that the caller gave the call is over.
    DeadlineExceeded,
    /// The gateway has no memory to spare, or no room for another stream.
    Overloaded,
    /// The state store is out of reach.
    StateUnavailable,
    /// The blob store is out of reach.
    StoreUnavailable,
    /// The gateway is shutting down.
    Draining,
    /// The caller asked for this fault, to see what becomes of it.
    InjectedFault,
    /// The call is not offered.
    NotOffered,
    /// The client closed the stream before finishing.
    ClientGone,
    /// A fault on the server's side.
    Internal,
}

/// One refused field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path as the proto names it, `file.file_name`.
    pub field: Cow<'static, str>,
    /// What is wrong with it, for people.
    pub description: String,
}

/// What went wrong, by kind.
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
    source: Option<Box<dyn StdError + Send + Sync>>,
}

// === impl Error ===

impl Error {
    /// An error of `kind` caused by `reason`; `message` is a lower-case sentence for people.
    pub fn new(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// A request whose `field` is refused.
    pub fn invalid(field: impl Into<Cow<'static, str>>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        let mut error = Self::new(
            Kind::InvalidArgument,
            Reason::InvalidField,
            format!("{field}: {description}"),
        );
        error.0.violations.push(Violation { field, description });
        error
    }

    /// A message that came out of turn in the stream.
    pub fn sequence(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, Reason::InvalidSequence, message)
    }

    /// Bytes at `provided` where the upload continues at `expected`.
    pub fn wrong_offset(expected: u64, provided: u64) -> Self {
        Self::new(
            Kind::OutOfRange,
            Reason::WrongOffset,
            format!("the next byte expected is {expected}, the chunk starts at {provided}"),
        )
        .with("expected_offset", expected)
        .with("provided_offset", provided)
    }

    /// An upload that does not exist or is not the caller's.
    pub fn upload_not_found(upload_id: impl fmt::Display) -> Self {
        Self::new(
            Kind::NotFound,
            Reason::UploadNotFound,
            format!("no upload {upload_id}"),
        )
        .with("upload_id", upload_id)
    }

    /// The upload's present state forbids the request.
    pub fn precondition(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, reason, message)
    }

    /// The state store did not answer; worth a retry.
    pub fn state_unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Kind::Unavailable,
            Reason::StateUnavailable,
            "the state store is unavailable",
        )
        .caused_by(source)
    }

    /// The blob store did not answer or asked for patience; worth a retry.
    pub fn store_unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(
            Kind::Unavailable,
            Reason::StoreUnavailable,
            "the blob store is unavailable",
        )
        .caused_by(source)
    }

    /// A fault on the server's side; `context` is for the log.
    pub fn internal(
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(Kind::Internal, Reason::Internal, context).caused_by(source)
    }

    /// A fault on the server's side that has no deeper cause.
    pub fn fault(context: impl Into<String>) -> Self {
        Self::new(Kind::Internal, Reason::Internal, context)
    }

    /// Adds a fact for programs: the `metadata` of `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.metadata.insert(key, value.to_string());
        self
    }

    /// Replaces the reason by a more exact one.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.0.reason = reason;
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller does next.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The exact cause.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Facts for programs, by key.
    pub fn metadata(&self) -> &BTreeMap<&'static str, String> {
        &self.0.metadata
    }

    /// Refused fields of the request.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// When to try again, where that is known.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same call may succeed when simply repeated later.
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
