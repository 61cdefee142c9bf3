//! Errors of Azure, as errors of the gateway.

use std::{error::Error as StdError, iter, time::Duration};

use azure_core::{Error as AzureError, error::ErrorKind};
use upload_gateway_core::error::Error;

/// An error of the SDK as text for the log. Its URLs may contain signatures, which are removed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Report(String);

/// The error of `action`: unavailable if the same request may succeed later, otherwise internal, for the operator to
/// fix.
pub(super) fn fault(action: &str, error: AzureError) -> Error {
    let status = status(&error);
    let is_temporary = match error.kind() {
        ErrorKind::Connection | ErrorKind::Io => true,
        // No token: the identity service is unavailable, or refuses the request.
        ErrorKind::Credential => has_temporary_cause(&error),
        ErrorKind::HttpResponse { .. } => matches!(status, Some(408 | 429 | 500 | 502..)),
        ErrorKind::DataConversion | ErrorKind::Other => false,
    };
    let report = report(&error);
    if is_temporary {
        let unavailable = Error::store_unavailable(report);
        return match retry_after(&error) {
            Some(delay) => unavailable.retry_after(delay),
            None => unavailable,
        };
    }
    let context = match (status, code(&error)) {
        (Some(401 | 403), code) => format!(
            "{action}: the store refuses the credentials ({})",
            code.unwrap_or("no code")
        ),
        (_, Some(code)) => format!("{action}: the store answers {code}"),
        (Some(status), None) => format!("{action}: the store answers status {status}"),
        (None, None) => format!("{action}: the request could not be sent"),
    };
    Error::internal(context, report)
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

/// The `Retry-After` of the store's response, in whole seconds.
fn retry_after(error: &AzureError) -> Option<Duration> {
    let ErrorKind::HttpResponse { raw_response, .. } = error.kind() else {
        return None;
    };
    let headers = raw_response.as_ref()?.headers();
    let delay = headers.get_optional_str(&"retry-after".into())?;
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
