//! Errors of S3, as errors of the gateway. This file has the only table of S3's error codes.
//!
//! Only an error code proves something: an answer without one may come from a proxy. Every failure that is in neither
//! list below is temporary.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use std::{error::Error as StdError, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use upload_gateway_core::error::Error;

use crate::blobs::failed::Failed;

/// Codes with which a store refuses a CompleteMultipartUpload for good: the same request never succeeds.
/// `NoSuchUpload` and `InvalidPart` have results of their own.
const REFUSED: [&str; 6] = [
    "EntityTooLarge",
    "EntityTooSmall",
    "InvalidArgument",
    "InvalidPartOrder",
    "InvalidRequest",
    "MalformedXML",
];

/// Codes with which a store refuses bytes that do not have the digest that was sent with them.
const DAMAGED: [&str; 2] = ["BadDigest", "XAmzContentChecksumMismatch"];

/// Codes with which a store refuses a checksum that it does not expect, or a part without one in a session that demands it.
const NO_CHECKSUM: [&str; 3] = ["InvalidArgument", "InvalidRequest", "NotImplemented"];

/// Codes that only an operator can fix: credentials, permissions, or the bucket.
const OPERATOR: [&str; 16] = [
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidBucketName",
    "InvalidSecurity",
    "InvalidToken",
    "NoSuchBucket",
    "NotSignedUp",
    "PermanentRedirect",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnauthorizedAccess",
    "UserSuspended",
];

/// Codes with which a store refuses to copy, for good: it does not offer that, or may not read the source, or cannot read it so.
/// Reading it and putting its bytes may succeed, or says better what is wrong.
const NOT_COPIED: [&str; 10] = [
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidArgument",
    "InvalidObjectState",
    "InvalidRange",
    "InvalidRequest",
    "MethodNotAllowed",
    "NoSuchBucket",
    "NoSuchKey",
    "NotImplemented",
];

/// Stands for a code if the SDK found no credentials, so that no request was sent.
pub(super) const NO_CREDENTIALS: &str = "no credentials";

/// The code for a request whose time is too far from the store's.
const CLOCK: &str = "RequestTimeTooSkewed";

/// Codes of the key management service start like this.
const KMS: &str = "KMS.";

/// The error of `action`. It is retryable, and [for an operator](Error::for_operator) if only an operator can fix it.
pub(super) fn fault<E>(action: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    if let SdkError::ConstructionFailure(_) = error {
        return Error::internal(format!("{action}: the request could not be made"), error);
    }
    let code = match error.code() {
        None if lacks_credentials(&error) => Some(NO_CREDENTIALS.to_owned()),
        code => code.map(str::to_owned),
    };
    let is_operators = code.as_deref().is_some_and(is_operators);
    let delay = retry_after(&error);
    let is_congestion = is_congestion(&error);
    let has_answer = code.is_some() || error.raw_response().is_some();
    let answer = match &code {
        Some(code) if code == CLOCK => format!(
            "{action}: the store answers {code}: the clocks of this machine and of the store differ too much"
        ),
        Some(code) => format!("{action}: the store answers {code}"),
        None if has_answer => format!("{action}: {}", answer_of(&error)),
        None => action.to_owned(),
    };
    let date = header(&error, "date").map(str::to_owned);
    let source = Failed::new(answer, has_answer, date.as_deref(), error);
    if let Some(code) = code.filter(|_| is_operators) {
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
fn is_congestion<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    match error {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_timeout(),
        _ => error.code() == Some("SlowDown") || matches!(status(error), Some(429 | 503)),
    }
}

/// Whether the store received other bytes than were sent.
pub(super) fn is_damage(code: Option<&str>) -> bool {
    code.is_some_and(|code| DAMAGED.contains(&code))
}

/// Whether the code can mean that the store expects no checksum, or that it demands one.
pub(super) fn is_about_checksum(code: Option<&str>) -> bool {
    code.is_some_and(|code| NO_CHECKSUM.contains(&code))
}

/// Whether the store refuses a commit with this code for good.
pub(super) fn is_refusal(code: Option<&str>) -> bool {
    code.is_some_and(|code| REFUSED.contains(&code))
}

/// Whether the store refuses a copy for good, so that the bytes must be put. Without a code, only a status that means so proves it:
/// nothing is lost if it is wrong.
pub(super) fn is_copy_refusal<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    match error.code() {
        Some(code) => NOT_COPIED.contains(&code),
        None => matches!(status(error), Some(400 | 403 | 404 | 405 | 501)),
    }
}

/// The error of `action` for a page of a list that says that more pages follow, and not where the next one starts after
/// it. Temporary: the next attempt starts with the first page.
pub(super) fn page_without_progress(action: &str) -> Error {
    Error::store_unavailable(format!(
        "{action}: a page of the list does not say where the next one starts"
    ))
}

/// The store's answer in words: its code, or else its status.
pub(super) fn answer_of<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata,
{
    match (error.code(), status(error)) {
        (Some(code), _) => format!("the store answers {code}"),
        (None, Some(status)) => format!("an answer with status {status} and no code"),
        (None, None) => "the store does not answer".into(),
    }
}

/// The HTTP status of the store's response, if there was one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

fn is_operators(code: &str) -> bool {
    code == NO_CREDENTIALS || code.starts_with(KMS) || OPERATOR.contains(&code)
}

pub(super) fn header<'a, E>(error: &'a SdkError<E, HttpResponse>, name: &str) -> Option<&'a str> {
    error.raw_response()?.headers().get(name)
}

/// The `Retry-After` of the store's response, in whole seconds.
fn retry_after<E>(error: &SdkError<E, HttpResponse>) -> Option<Duration> {
    let delay = header(error, "retry-after")?;
    delay.parse().ok().map(Duration::from_secs)
}

/// Whether no request was sent because there are no credentials.
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
