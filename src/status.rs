//! The one table from kinds of errors to gRPC codes, HTTP statuses, log levels and metric labels.

#![deny(clippy::wildcard_enum_match_arm)]

mod fault;

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::Level;
use upload_gateway_client::proto::v1::ErrorReason;
use upload_gateway_core::{
    call,
    error::{Error, Kind, Reason},
};
use utoipa::ToSchema;

pub use self::fault::{Outcome, is_fault};
use crate::request_id::RequestId;

/// The domain of all reasons in `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "uploadgateway.v1";

/// The message of every server fault. Internal details are only in the log.
const FAULT: &str = "the gateway failed; its log has the cause under the request id";

/// The prefix of the fields of a file's metadata in gRPC. In HTTP they are parameters without a prefix.
const FILE: &str = "file.";

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The gRPC code.
    pub code: Code,
    /// The HTTP status.
    pub http: u16,
    /// The log level: ERROR only if an operator must act.
    pub level: Level,
    /// The label in metrics.
    pub label: &'static str,
}

/// The row of `kind`.
pub fn row(kind: Kind) -> Row {
    let row = |code, http, level, label| Row {
        code,
        http,
        level,
        label,
    };
    match kind {
        Kind::InvalidArgument => row(Code::InvalidArgument, 400, Level::DEBUG, "invalid_argument"),
        Kind::OutOfRange => row(Code::OutOfRange, 400, Level::DEBUG, "out_of_range"),
        Kind::NotFound => row(Code::NotFound, 404, Level::DEBUG, "not_found"),
        Kind::FailedPrecondition => row(
            Code::FailedPrecondition,
            412,
            Level::INFO,
            "failed_precondition",
        ),
        Kind::Aborted => row(Code::Aborted, 409, Level::INFO, "aborted"),
        Kind::DataLoss => row(Code::DataLoss, 422, Level::WARN, "data_loss"),
        Kind::ResourceExhausted => row(
            Code::ResourceExhausted,
            429,
            Level::WARN,
            "resource_exhausted",
        ),
        // gRPC clients retry this code by themselves, as they should.
        Kind::Unavailable => row(Code::Unavailable, 503, Level::WARN, "unavailable"),
        Kind::DeadlineExceeded => row(
            Code::DeadlineExceeded,
            504,
            Level::DEBUG,
            "deadline_exceeded",
        ),
        Kind::PermissionDenied => row(
            Code::PermissionDenied,
            403,
            Level::INFO,
            "permission_denied",
        ),
        Kind::Unauthenticated => row(Code::Unauthenticated, 401, Level::INFO, "unauthenticated"),
        Kind::Unimplemented => row(Code::Unimplemented, 501, Level::DEBUG, "unimplemented"),
        Kind::Cancelled => row(Code::Cancelled, 499, Level::DEBUG, "cancelled"),
        Kind::Internal => row(Code::Internal, 500, Level::ERROR, "internal"),
    }
}

/// The name of the code of a call that its client left.
pub const CANCELLED: &str = "CANCELLED";

/// The name of the code in a `grpc-status` header, as the specification of gRPC has it.
pub fn code_name(grpc_status: &[u8]) -> &'static str {
    match Code::from_bytes(grpc_status) {
        Code::Ok => "OK",
        Code::Cancelled => CANCELLED,
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The reason that callers read. None: no caller reads the error, because the client has disconnected.
pub fn public_reason(reason: Reason) -> Option<ErrorReason> {
    Some(match reason {
        Reason::InvalidField => ErrorReason::InvalidField,
        Reason::InvalidToken => ErrorReason::InvalidToken,
        Reason::InvalidSequence => ErrorReason::InvalidSequence,
        Reason::MessageTooLarge => ErrorReason::MessageTooLarge,
        Reason::ChecksumMismatch => ErrorReason::ChecksumMismatch,
        Reason::WrongOffset => ErrorReason::WrongOffset,
        Reason::StateLost => ErrorReason::StateLost,
        Reason::SizeExceeded => ErrorReason::SizeExceeded,
        Reason::FileTooLarge => ErrorReason::FileTooLarge,
        Reason::UploadNotFound => ErrorReason::UploadNotFound,
        Reason::UploadMoved => ErrorReason::UploadMoved,
        Reason::StorageNotFound => ErrorReason::StorageNotFound,
        Reason::WrongPhase => ErrorReason::WrongPhase,
        Reason::Incomplete => ErrorReason::Incomplete,
        Reason::PrefixMismatch => ErrorReason::PrefixMismatch,
        Reason::DigestUnknown => ErrorReason::DigestUnknown,
        Reason::DigestMismatch => ErrorReason::DigestMismatch,
        Reason::PartReplaced => ErrorReason::PartReplaced,
        Reason::ObjectChanged => ErrorReason::ObjectChanged,
        Reason::SessionLost => ErrorReason::SessionLost,
        Reason::SessionNotStarted => ErrorReason::SessionNotStarted,
        Reason::SessionInUse => ErrorReason::SessionInUse,
        Reason::NotSupported => ErrorReason::NotSupported,
        Reason::ObjectArchived => ErrorReason::ObjectArchived,
        Reason::SizeUnknown => ErrorReason::SizeUnknown,
        Reason::TakenOver => ErrorReason::TakenOver,
        Reason::WriterActive => ErrorReason::WriterActive,
        Reason::BudgetTooSmall => ErrorReason::BudgetTooSmall,
        Reason::IdleTimeout => ErrorReason::IdleTimeout,
        Reason::TooSlow => ErrorReason::TooSlow,
        Reason::DeadlineExceeded => ErrorReason::DeadlineExceeded,
        Reason::Overloaded => ErrorReason::Overloaded,
        Reason::StateUnavailable => ErrorReason::StateUnavailable,
        Reason::StateFull => ErrorReason::StateFull,
        Reason::StoreUnavailable => ErrorReason::StoreUnavailable,
        Reason::Draining => ErrorReason::Draining,
        Reason::MoveOn => ErrorReason::MoveOn,
        Reason::UploadsStopped => ErrorReason::UploadsStopped,
        Reason::InjectedFault => ErrorReason::InjectedFault,
        Reason::CredentialMissing => ErrorReason::CredentialMissing,
        Reason::CredentialExpired => ErrorReason::CredentialExpired,
        Reason::CredentialInvalid => ErrorReason::CredentialInvalid,
        Reason::IssuerUnavailable => ErrorReason::IssuerUnavailable,
        Reason::RoleMissing => ErrorReason::RoleMissing,
        Reason::NotOffered => ErrorReason::NotOffered,
        Reason::ClientGone => return None,
        Reason::Internal => ErrorReason::Internal,
    })
}

/// The HTTP status of an error: that of its kind, but 413 for a file that is too large, and 409 for a session that is not
/// the recorded one.
pub fn http_status(error: &Error) -> u16 {
    if error.reason() == Reason::FileTooLarge {
        return 413;
    }
    if error.reason() == Reason::SessionInUse {
        return 409;
    }
    row(error.kind()).http
}

/// The HTTP response to an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// How long to wait before the next try, if that is known.
    pub retry_after: Option<Duration>,
    /// The body. None with status 403.
    pub body: Option<HttpError>,
}

/// Why a request failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct HttpError {
    /// What is wrong, for people.
    #[serde(rename = "error")]
    pub message: String,
    /// The first invalid parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// All invalid parameters, the first 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub violations: Vec<HttpViolation>,
    /// The values that the storage allows for the invalid parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub restriction: Option<String>,
    /// The cause, for programs: a name of ErrorReason without its prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "INVALID_FIELD")]
    pub reason: Option<&'static str>,
    /// The numbers of missing parts; only the first ones if there are many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub missing_parts: Option<Vec<u32>>,
    /// The recorded id of the store's session, if another one was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub resumable_id: Option<String>,
    /// Finds the cause of a server fault in the gateway's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
}

/// An invalid parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HttpViolation {
    /// What is wrong, for people.
    #[serde(rename = "error")]
    pub message: String,
    /// The parameter.
    pub parameter: String,
}

/// The gRPC status of an error. Also logs the error. A server fault has only a fixed message and a request id.
pub fn grpc_status(error: &Error) -> Status {
    let public = report(error);
    let mut details = ErrorDetails::new();
    if let Some(reason) = public_reason(error.reason()) {
        details.set_error_info(reason.name(), ERROR_DOMAIN, public.metadata);
    }
    for violation in error.violations() {
        details.add_bad_request_violation(&*violation.field, violation.description.as_str());
    }
    if let Some(delay) = error.retry_delay() {
        details.set_retry_info(Some(delay));
    }
    details.set_request_info(public.request_id.as_str(), "");
    Status::with_error_details_and_metadata(
        row(error.kind()).code,
        public.message,
        details,
        MetadataMap::new(),
    )
}

/// The HTTP response to an error. Also logs the error. A server fault has only a fixed message and a request id.
pub fn http_answer(error: &Error) -> HttpAnswer {
    let mut public = report(error);
    let status = http_status(error);
    let violations = http_violations(error);
    if let Some(first) = violations.first() {
        public.message.clone_from(&first.message);
    }
    let missing_parts = public.metadata.get("missing_parts").map(|list| {
        list.split(',')
            .filter_map(|part| part.parse().ok())
            .collect()
    });
    let body = HttpError {
        message: public.message,
        parameter: violations.first().map(|first| first.parameter.clone()),
        violations,
        restriction: public.metadata.remove("restriction"),
        reason: public_reason(error.reason()).map(ErrorReason::name),
        missing_parts,
        resumable_id: public.metadata.remove("resumable_id"),
        request_id: (error.kind() == Kind::Internal).then(|| public.request_id.as_str().to_owned()),
    };
    HttpAnswer {
        status,
        retry_after: error.retry_delay(),
        body: (status != 403).then_some(body),
    }
}

/// The invalid parameters of a request, each one once.
fn http_violations(error: &Error) -> Vec<HttpViolation> {
    let mut all: Vec<HttpViolation> = Vec::new();
    for violation in error.violations() {
        let path = violation.field.trim_start_matches(FILE);
        let name = path.split(['.', '[']).next().unwrap_or(path);
        if all.iter().any(|known| known.parameter == name) {
            continue;
        }
        let message = match violation.description.as_str() {
            description if path == name => description.to_owned(),
            description => format!("{path}: {description}"),
        };
        all.push(HttpViolation {
            message,
            parameter: name.to_owned(),
        });
    }
    all
}

/// Logs an error that can no longer be sent to the caller.
pub fn log(error: &Error) {
    report(error);
}

/// The public part of an error.
struct PublicError {
    message: String,
    metadata: HashMap<String, String>,
    request_id: RequestId,
}

/// Separates the public part of an error, and logs all of it.
fn report(error: &Error) -> PublicError {
    let request_id = RequestId::current();
    log_as(error, row(error.kind()), request_id.as_str());
    Outcome::note(error);
    let facts = error.metadata().iter();
    let mut metadata: HashMap<String, String> = facts
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let mut message = error.to_string();
    if error.kind() == Kind::Internal {
        metadata.retain(|key, _| key == "upload_id");
        metadata.insert("request_id".into(), request_id.as_str().to_owned());
        message = FAULT.into();
    }
    PublicError {
        message,
        metadata,
        request_id,
    }
}

fn log_as(error: &Error, row: Row, request_id: &str) {
    let cause = error.causes();
    // The lines of a call have its id in their span.
    let request_id = call::current::<RequestId>().is_none().then_some(request_id);
    let reason = public_reason(error.reason()).map_or("", ErrorReason::name);
    let upload_id = error.metadata().get("upload_id").map_or("", String::as_str);
    macro_rules! at {
        ($level:ident) => {
            tracing::$level!(%error, reason, cause, upload_id, request_id, "a call failed: {error}")
        };
    }
    // What a caller or an operator causes needs no attention.
    let is_planned = error.kind() == Kind::Unavailable
        && public_reason(error.reason()).is_some_and(|reason| !is_fault(reason));
    match row.level {
        _ if is_planned => at!(info),
        Level::ERROR => at!(error),
        Level::WARN => at!(warn),
        Level::INFO => at!(info),
        _ => at!(debug),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::HeaderValue;

    use super::*;
    use crate::request_id::HEADER;

    #[test]
    fn a_server_fault_shows_callers_no_internal_details() {
        let error =
            Error::internal("read the record of alice", "password=hunter2").with("upload_id", "u");
        let status = grpc_status(&error);
        assert_eq!(status.code(), Code::Internal);
        let public = format!("{status:?}");
        assert!(
            !public.contains("alice") && !public.contains("hunter2"),
            "{public}"
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, ErrorReason::Internal.name());
        assert!(info.metadata.contains_key("request_id"));
    }

    #[tokio::test]
    async fn errors_of_a_call_have_its_request_id() {
        let headers = [(HEADER, HeaderValue::from_static("mine"))].into_iter();
        let id = RequestId::of(&headers.collect());
        let errors = async {
            let missing = Error::upload_not_found("u");
            let fault = Error::internal("read", "cause");
            (
                grpc_status(&missing),
                grpc_status(&fault),
                http_answer(&fault),
            )
        };
        let (missing, fault, answer) = call::scope(Arc::new(id), errors).await;
        for status in [missing, fault] {
            let details = status.get_error_details();
            assert_eq!(details.request_info().unwrap().request_id, "mine");
        }
        assert_eq!(answer.body.unwrap().request_id.as_deref(), Some("mine"));
    }

    #[test]
    fn grpc_errors_carry_reason_offsets_fields_and_delays() {
        let status = grpc_status(&Error::wrong_offset(10, 20));
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            (ErrorReason::WrongOffset.name(), ERROR_DOMAIN)
        );
        assert_eq!(info.metadata["expected_offset"], "10");

        let status = grpc_status(&Error::invalid("file.file_name", "must not be empty"));
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "file.file_name");

        let status =
            grpc_status(&Error::state_unavailable("x").retry_after(Duration::from_secs(3)));
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(3)));
    }

    #[test]
    fn http_errors_name_the_parameter_and_the_missing_parts() {
        let answer = http_answer(&Error::invalid("file.file_name", "must not be empty"));
        let body = answer.body.unwrap();
        assert_eq!((answer.status, &*body.message), (400, "must not be empty"));
        assert_eq!(body.parameter.as_deref(), Some("file_name"));
        let answer = http_answer(&Error::invalid("part_data[3].md5", "invalid"));
        assert_eq!(answer.body.unwrap().parameter.as_deref(), Some("part_data"));

        let error = Error::precondition(Reason::Incomplete, "x").with("missing_parts", "2,4");
        let answer = http_answer(&error.retry_after(Duration::from_secs(2)));
        assert_eq!(
            (answer.status, answer.retry_after),
            (412, Some(Duration::from_secs(2)))
        );
        let body = answer.body.unwrap();
        assert_eq!(
            (body.reason, body.missing_parts),
            (Some(ErrorReason::Incomplete.name()), Some(vec![2, 4]))
        );
    }

    #[test]
    fn http_faults_have_a_fixed_message_and_403_has_no_body() {
        let fault = Error::internal("read the record of alice", "hunter2").with("upload_id", "u");
        let answer = http_answer(&fault);
        let body = answer.body.unwrap();
        assert_eq!((answer.status, &*body.message), (500, FAULT));
        assert!(body.request_id.is_some());
        let denied = Error::new(Kind::PermissionDenied, Reason::RoleMissing, "secret");
        assert_eq!(
            (http_answer(&denied).status, http_answer(&denied).body),
            (403, None)
        );
    }
}
