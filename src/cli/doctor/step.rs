//! The steps of a check of a storage, and what to do if one fails.

use std::fmt;

use upload_gateway_core::error::{Error, Kind};

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
    fn permission(self) -> &'static str {
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
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
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
        })
    }
}

// === impl Failed ===

impl Failed {
    /// What to do.
    pub(super) fn advice(&self) -> String {
        match (self.error.operator_code(), self.error.kind()) {
            (Some(code), _) => of_code(code, self.step),
            (None, Kind::Unavailable | Kind::ResourceExhausted) => {
                "the store is unreachable or overloaded: check endpoint, name resolution, firewall and TLS".into()
            }
            (None, Kind::DataLoss) => {
                "bytes are changed between this machine and the store: check the proxies and the network between them".into()
            }
            _ if self.step == Step::FindBucket => {
                "check the name, the region and the credentials of the storage".into()
            }
            _ => format!("check what the store answers; {}", permission(self.step)),
        }
    }
}

/// What to do about an error code of a store.
fn of_code(code: &str, step: Step) -> String {
    match code {
        "NoSuchBucket" | "InvalidBucketName" => "create the bucket, or correct bucket".into(),
        "ContainerNotFound" | "ContainerDisabled" => {
            "create the container, or correct container".into()
        }
        "AuthorizationHeaderMalformed" | "PermanentRedirect" => {
            "set region and endpoint to those of the bucket".into()
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => {
            "correct access_key_id and secret_access_key; SignatureDoesNotMatch can also mean that a proxy changes requests"
                .into()
        }
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => {
            "correct account and account_key, and check the clock of this machine".into()
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            "replace the session token with a new one".into()
        }
        "no credentials" => {
            "set access_key_id and secret_access_key, or credentials that the SDK's default chain finds".into()
        }
        "no token" => "check the workload identity or the managed identity of this machine".into(),
        code if code.starts_with("KMS.") => {
            "check the KMS key of the bucket, and allow kms:GenerateDataKey and kms:Decrypt".into()
        }
        code if code.starts_with("KeyVault") => {
            "check the key vault of the account, and that the account may use its key".into()
        }
        _ => permission(step),
    }
}

fn permission(step: Step) -> String {
    format!(
        "{} (Azure: role Storage Blob Data Contributor)",
        step.permission()
    )
}
