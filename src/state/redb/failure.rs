//! Failures of the state file.

use upload_gateway_core::error::Error;

/// An error of the file: unavailable if reading or writing failed (a full disk), internal if the content is invalid.
pub(super) fn internal(cause: impl Into<::redb::Error>) -> Error {
    match cause.into() {
        cause @ (::redb::Error::Io(_) | ::redb::Error::PreviousIo) => {
            Error::state_unavailable(cause)
        }
        cause => Error::internal("the state file cannot be used", cause),
    }
}
