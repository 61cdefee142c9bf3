//! The steps of a check of a storage, and the permissions that they need.

use upload_gateway_core::error::Error;

/// What is done with a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    FindBucket,
    PutObject,
    DescribeObject,
    ReadObject,
    DeleteObject,
    CreateSession,
    PutPart,
    ListParts,
    Commit,
    Abort,
    ListSessions,
}

/// A step that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) step: Step,
    pub(super) error: Error,
}

// === impl Step ===

impl Step {
    /// For `map_err`: the error, with the step that failed.
    pub(super) fn failed(self, error: Error) -> Failed {
        Failed { step: self, error }
    }

    /// The permission that the step needs.
    pub(super) fn permission(self) -> &'static str {
        match self {
            Self::FindBucket => "allow s3:ListBucket",
            Self::PutObject | Self::CreateSession | Self::PutPart | Self::Commit => {
                "allow s3:PutObject (with acl also s3:PutObjectAcl)"
            }
            Self::DescribeObject | Self::ReadObject => "allow s3:GetObject",
            Self::DeleteObject => "allow s3:DeleteObject",
            Self::ListParts => "allow s3:ListMultipartUploadParts",
            Self::Abort => "allow s3:AbortMultipartUpload",
            Self::ListSessions => {
                "allow s3:ListBucketMultipartUploads, which the sweeper needs to find orphaned multipart uploads"
            }
        }
    }

    /// The step in words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FindBucket => "find the bucket or container",
            Self::PutObject => "write an object",
            Self::DescribeObject => "describe an object",
            Self::ReadObject => "read an object",
            Self::DeleteObject => "delete an object",
            Self::CreateSession => "create a multipart upload",
            Self::PutPart => "write a part",
            Self::ListParts => "list parts",
            Self::Commit => "make an object of parts",
            Self::Abort => "abort a multipart upload",
            Self::ListSessions => "list multipart uploads",
        }
    }
}
