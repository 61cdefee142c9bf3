//! Why a call on the storage failed.

use std::io;

use s3s::S3Error;

/// An S3 error code for the client, or an internal error.
#[derive(Debug)]
pub(super) struct Failure(S3Error);

/// The result of a call on the storage.
pub(super) type Outcome<T> = Result<T, Failure>;

// === impl Failure ===

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        Self(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(S3Error::internal_error(error))
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(S3Error::internal_error(error))
    }
}

impl From<Failure> for S3Error {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}
