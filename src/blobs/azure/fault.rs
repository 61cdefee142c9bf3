//! Errors of Azure, as errors of the gateway. This file has the only table of Azure's error codes.
//!
//! Only an error code proves something: an answer without one may come from a proxy. Every failure that is in neither
//! list below is temporary.
//! <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>

use std::{error::Error as StdError, iter, time::Duration};

use azure_core::{Error as AzureError, error::ErrorKind};
use tokio::time::error::Elapsed;
use upload_gateway_core::error::Error;

use crate::blobs::{failed::Failed, transport::SendError};

/// An error of the SDK as text for the log. Its URLs may contain signatures, which are removed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Report(String);

/// Codes that only an operator can fix: credentials, permissions, or the container.
const OPERATOR: [&str; 13] = [
    "AccountIsDisabled",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "AuthorizationPermissionMismatch",
    "AuthorizationProtocolMismatch",
    "AuthorizationResourceTypeMismatch",
    "AuthorizationServiceMismatch",
    "AuthorizationSourceIPMismatch",
    "ContainerDisabled",
    "ContainerNotFound",
    "InsufficientAccountPermissions",
    "InvalidAuthenticationInfo",
    "NoAuthenticationInformation",
];

/// Codes with which the store refuses a Put Block List for good: the same request never succeeds. `InvalidBlockList` has
/// a result of its own.
const REFUSED: [&str; 5] = [
    "BlockCountExceedsLimit",
    "BlockListTooLong",
    "InvalidBlobOrBlock",
    "InvalidBlockId",
    "InvalidXmlDocument",
];

/// Codes of the key management service start like this.
const KEY_VAULT: &str = "KeyVault";

/// Stands for a code if the identity service refuses the request for a token.
const NO_TOKEN: &str = "no token";

/// The error of `action`. It is retryable, and [for an operator](Error::for_operator) if only an operator can fix it.
pub(super) fn fault(action: &str, error: AzureError) -> Error {
    let code = match error.kind() {
        ErrorKind::Credential if !has_temporary_cause(&error) => Some(NO_TOKEN.to_owned()),
        _ => code(&error).map(str::to_owned),
    };
    let is_congestion = is_congestion(&error);
    let answer = match (&code, status(&error)) {
        (Some(code), _) => format!("{action}: the store answers {code}"),
        (None, Some(status)) => format!("{action}: an answer with status {status} and no code"),
        (None, None) => action.to_owned(),
    };
    let delay = retry_after(&error);
    let has_answer = code.is_some() || status(&error).is_some();
    let source = Failed::new(answer, has_answer, header(&error, "date"), report(&error));
    if let Some(code) = code.filter(|code| is_operators(code)) {
        return Error::for_operator(code, source);
    }
    let mut unavailable = Error::store_unavailable(source);
    if is_congestion {
        unavailable = unavailable.congested();
    }
    match delay {
        Some(delay) => unavailable.retry_after(delay),
        None => unavailable,
    }
}

/// Whether the store throttled the request or did not keep up with it.
fn is_congestion(error: &AzureError) -> bool {
    let timed_out = |cause: &(dyn StdError + 'static)| {
        cause.is::<Elapsed>()
            || cause
                .downcast_ref::<SendError>()
                .is_some_and(SendError::is_timeout)
    };
    matches!(status(error), Some(429 | 503)) || causes(error).any(timed_out)
}

/// Whether the store refuses a commit with this code for good.
pub(super) fn is_refusal(code: Option<&str>) -> bool {
    code.is_some_and(|code| REFUSED.contains(&code))
}

/// Whether the store refuses a copy for good, so that the bytes must be put: it does not offer that, or may not read the source. Nothing
/// is lost if it is wrong, and a put says better what is wrong with the credentials.
pub(super) fn is_copy_refusal(error: &AzureError) -> bool {
    match status(error) {
        Some(408 | 429) => false,
        Some(status) => matches!(status, 400..=499 | 501),
        None => false,
    }
}

/// The store's error code, if only an operator can fix the cause.
pub(super) fn operator_code(error: &AzureError) -> Option<&str> {
    code(error).filter(|code| is_operators(code))
}

fn is_operators(code: &str) -> bool {
    code == NO_TOKEN || code.starts_with(KEY_VAULT) || OPERATOR.contains(&code)
}

/// The HTTP status of the store's response, if there was one.
pub(super) fn status(error: &AzureError) -> Option<u16> {
    error.http_status().map(u16::from)
}

/// The store's error code.
pub(super) fn code(error: &AzureError) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

/// The error and its causes, without signatures.
pub(super) fn report(error: &AzureError) -> impl StdError + Send + Sync + 'static {
    let text: Vec<_> = causes(error).map(ToString::to_string).collect();
    Report(without_signatures(&text.join(": ")))
}

fn causes(error: &AzureError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    iter::successors(Some(error as &(dyn StdError + 'static)), |error| {
        (*error).source()
    })
}

fn has_temporary_cause(error: &AzureError) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<AzureError>())
        .any(|cause| {
            matches!(cause.kind(), ErrorKind::Connection | ErrorKind::Io)
                || matches!(status(cause), Some(408 | 429 | 500..))
        })
}

fn header<'a>(error: &'a AzureError, name: &'static str) -> Option<&'a str> {
    let ErrorKind::HttpResponse { raw_response, .. } = error.kind() else {
        return None;
    };
    let headers = raw_response.as_ref()?.headers();
    headers.get_optional_str(&name.into())
}

/// The `Retry-After` of the store's response, in whole seconds.
fn retry_after(error: &AzureError) -> Option<Duration> {
    let delay = header(error, "retry-after")?;
    delay.parse().ok().map(Duration::from_secs)
}

fn without_signatures(text: &str) -> String {
    let mut pieces = text.split("sig=");
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece
            .find(['&', ' ', ')', '"', '\''])
            .unwrap_or(piece.len());
        clean.push_str("sig=[redacted]");
        clean.push_str(&piece[end..]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_do_not_reach_the_log() {
        let text =
            "request for url (http://a/b?sig=abc%3D&sv=1): also http://c?sv=1&sig=def) and sig=xyz";
        assert_eq!(
            without_signatures(text),
            "request for url (http://a/b?sig=[redacted]&sv=1): also http://c?sv=1&sig=[redacted]) and sig=[redacted]"
        );
    }
}
