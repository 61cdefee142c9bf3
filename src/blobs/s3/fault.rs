//! Errors of S3, as errors of the gateway.

use std::{error::Error as StdError, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use upload_gateway_core::error::Error;

/// Error codes that are worth a retry. They come with any status, also 200 (CompleteMultipartUpload) and 400
/// (`RequestTimeout`).
const TEMPORARY: [&str; 8] = [
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "Throttling",
    "TooManyRequests",
    "OperationAborted",
    "ConditionalRequestConflict",
];

/// The error of `action`: unavailable if the same request may succeed later, otherwise internal, for the operator to
/// fix.
pub(super) fn fault<E>(action: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let status = status(&error);
    let is_temporary = match &error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        SdkError::DispatchFailure(_) => !lacks_credentials(&error),
        SdkError::ServiceError(_) => {
            let is_listed = error.code().is_some_and(|code| TEMPORARY.contains(&code));
            is_listed || matches!(status, Some(408 | 429 | 500 | 502..))
        }
        _ => false,
    };
    if is_temporary {
        let delay = retry_after(&error);
        let unavailable = Error::store_unavailable(error);
        return match delay {
            Some(delay) => unavailable.retry_after(delay),
            None => unavailable,
        };
    }
    let context = match (status, error.code()) {
        (Some(401 | 403), code) => format!(
            "{action}: the store refuses the credentials ({})",
            code.unwrap_or("no code")
        ),
        (_, Some(code)) => format!("{action}: the store answers {code}"),
        (Some(status), None) => format!("{action}: the store answers status {status}"),
        (None, None) => format!("{action}: the request could not be sent"),
    };
    Error::internal(context, error)
}

/// The HTTP status of the store's response, if there was one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// The `Retry-After` of the store's response, in whole seconds.
fn retry_after<E>(error: &SdkError<E, HttpResponse>) -> Option<Duration> {
    let delay = error.raw_response()?.headers().get("retry-after")?;
    delay.parse().ok().map(Duration::from_secs)
}

/// Whether no request was sent because there are no credentials, which a retry does not fix.
pub(super) fn lacks_credentials(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source())
        .filter_map(|cause| cause.downcast_ref::<CredentialsError>())
        .any(|cause| {
            matches!(
                cause,
                CredentialsError::CredentialsNotLoaded(_)
                    | CredentialsError::InvalidConfiguration(_)
            )
        })
}
