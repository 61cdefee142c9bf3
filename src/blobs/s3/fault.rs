//! What an answer of S3 means for the gateway.

use std::{error::Error as StdError, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use upload_gateway_core::error::Error;

/// Codes that ask for throttled; they come with any status, also 200 (Complete) and 400 (`RequestTimeout`).
const THROTTLING: [&str; 8] = [
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "Throttling",
    "TooManyRequests",
    "OperationAborted",
    "ConditionalRequestConflict",
];

/// The failure of `action`: unavailable where the same request may succeed later, otherwise a fault that the operator
/// has to mend.
pub(super) fn fault<E>(action: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let status = status(&error);
    let passing = match &error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        SdkError::DispatchFailure(_) => !lacks_credentials(&error),
        SdkError::ServiceError(_) => {
            let throttled = error.code().is_some_and(|code| THROTTLING.contains(&code));
            throttled || matches!(status, Some(408 | 429 | 500 | 502..))
        }
        _ => false,
    };
    if passing {
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
        (None, None) => format!("{action}: the request could not be made"),
    };
    Error::internal(context, error)
}

/// The status of the store's answer, if it answered.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// The delay a store asks for, in whole seconds.
fn retry_after<E>(error: &SdkError<E, HttpResponse>) -> Option<Duration> {
    let delay = error.raw_response()?.headers().get("retry-after")?;
    delay.parse().ok().map(Duration::from_secs)
}

/// Whether no request was made because there are no credentials, which time alone does not mend.
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
