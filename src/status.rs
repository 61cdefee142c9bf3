//! The one table from an error's kind to what the wire, the log and the metrics say of it.

#![deny(clippy::wildcard_enum_match_arm)]

use std::{collections::HashMap, error::Error as StdError, fmt::Write};

use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::Level;

use crate::error::{Error, Kind, Reason};

/// The domain of every reason, as `google.rpc.ErrorInfo` wants one.
pub const ERROR_DOMAIN: &str = "uploadgateway.v1";

/// What a caller is told of a server fault; everything else is in the log, under the request id.
const FAULT: &str = "the gateway failed; the log has more under the request id";

/// What one kind of error is called where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The gRPC code.
    pub code: Code,
    /// The HTTP status.
    pub http: u16,
    /// How loudly it is logged: ERROR only where a human must act.
    pub level: Level,
    /// The label on metrics.
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
        // Clients retry it by themselves, and that is right.
        Kind::Unavailable => row(Code::Unavailable, 503, Level::WARN, "unavailable"),
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

/// The HTTP status of an error: its kind's, but 413 for a file that is too large.
pub fn http_status(error: &Error) -> u16 {
    if error.reason() == Reason::FileTooLarge {
        return 413;
    }
    row(error.kind()).http
}

/// Turns an error into what a gRPC caller reads, and logs it once. A server fault is told as a fixed sentence and a
/// request id.
pub fn grpc_status(error: &Error) -> Status {
    let row = row(error.kind());
    let request_id = format!("{:016x}", rand::random::<u64>());
    log(error, row, &request_id);
    let fault = error.kind() == Kind::Internal;
    let mut metadata: HashMap<String, String> = HashMap::new();
    if fault {
        metadata.insert("request_id".into(), request_id);
        let upload_id = error.metadata().get_key_value("upload_id");
        metadata.extend(upload_id.map(|(key, value)| ((*key).to_owned(), value.clone())));
    } else {
        let known = error.metadata().iter();
        metadata.extend(known.map(|(key, value)| ((*key).to_owned(), value.clone())));
    }
    let mut details =
        ErrorDetails::with_error_info(error.reason().as_str(), ERROR_DOMAIN, metadata);
    for violation in error.violations() {
        details.add_bad_request_violation(violation.field, violation.description.as_str());
    }
    if let Some(delay) = error.retry_delay() {
        details.set_retry_info(Some(delay));
    }
    let message = if fault {
        FAULT.to_owned()
    } else {
        error.to_string()
    };
    Status::with_error_details_and_metadata(row.code, message, details, MetadataMap::new())
}

fn log(error: &Error, row: Row, request_id: &str) {
    let cause = causes(error);
    let reason = error.reason().as_str();
    let upload_id = error.metadata().get("upload_id").map_or("", String::as_str);
    macro_rules! at {
        ($level:ident) => {
            tracing::$level!(%error, reason, cause, upload_id, request_id, "a call failed: {error}")
        };
    }
    match row.level {
        Level::ERROR => at!(error),
        Level::WARN => at!(warn),
        Level::INFO => at!(info),
        _ => at!(debug),
    }
}

/// The chain of causes, outermost first.
fn causes(error: &Error) -> String {
    let mut chain = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let separator = if chain.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let _ = write!(chain, "{separator}{cause}");
        next = cause.source();
    }
    chain
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_server_fault_keeps_its_inside_to_itself() {
        let error =
            Error::internal("read the record of alice", "password=hunter2").with("upload_id", "u");
        let status = grpc_status(&error);
        assert_eq!(status.code(), Code::Internal);
        let told = format!("{status:?}");
        assert!(
            !told.contains("alice") && !told.contains("hunter2"),
            "{told}"
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "INTERNAL");
        assert!(info.metadata.contains_key("request_id"));
    }

    #[test]
    fn a_caller_reads_reason_offsets_fields_and_delays() {
        let status = grpc_status(&Error::wrong_offset(10, 20));
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("WRONG_OFFSET", ERROR_DOMAIN)
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
}
