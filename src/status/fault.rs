//! Which errors are faults of the service: those that count against its service levels.

use std::sync::atomic::{AtomicBool, Ordering};

use upload_gateway_client::proto::v1::ErrorReason;
use upload_gateway_core::{call, error::Error};

use super::public_reason;

/// The limits that belong to one owner: their names in the metadata of an error begin with this.
const OF_OWNER: &str = "per_owner.";

/// Whether the running call has failed by a fault of the service. It is in the scope of each call.
#[derive(Debug, Default)]
pub struct Outcome(AtomicBool);

// === impl Outcome ===

impl Outcome {
    /// Whether the call has failed by a fault of the service so far.
    pub fn is_fault(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes an error of the running call.
    pub(super) fn note(error: &Error) {
        // A caller at its own limit takes nothing from others.
        let limit = error.metadata().get("limit");
        let is_own_limit = limit.is_some_and(|limit| limit.starts_with(OF_OWNER));
        if public_reason(error.reason()).is_some_and(is_fault)
            && !is_own_limit
            && let Some(outcome) = call::current::<Self>()
        {
            outcome.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether an error with this reason is a fault: of the gateway, of what it needs, or of its configuration. The others are
/// errors of callers, or requests to continue elsewhere. OVERLOADED is a fault unless the caller is at a limit of its own.
pub fn is_fault(reason: ErrorReason) -> bool {
    match reason {
        ErrorReason::StateUnavailable
        | ErrorReason::StateFull
        | ErrorReason::StateLost
        | ErrorReason::StoreUnavailable
        | ErrorReason::IssuerUnavailable
        | ErrorReason::Overloaded
        | ErrorReason::BudgetTooSmall
        | ErrorReason::SessionLost
        | ErrorReason::PartReplaced
        | ErrorReason::ObjectChanged
        | ErrorReason::Internal => true,
        ErrorReason::Unspecified
        | ErrorReason::InvalidField
        | ErrorReason::InvalidToken
        | ErrorReason::InvalidSequence
        | ErrorReason::MessageTooLarge
        | ErrorReason::ChecksumMismatch
        | ErrorReason::WrongOffset
        | ErrorReason::SizeExceeded
        | ErrorReason::FileTooLarge
        | ErrorReason::UploadNotFound
        | ErrorReason::UploadMoved
        | ErrorReason::StorageNotFound
        | ErrorReason::WrongPhase
        | ErrorReason::Incomplete
        | ErrorReason::PrefixMismatch
        | ErrorReason::DigestUnknown
        | ErrorReason::DigestMismatch
        | ErrorReason::SessionNotStarted
        | ErrorReason::SessionInUse
        | ErrorReason::NotSupported
        | ErrorReason::ObjectArchived
        | ErrorReason::SizeUnknown
        | ErrorReason::TakenOver
        | ErrorReason::WriterActive
        | ErrorReason::IdleTimeout
        | ErrorReason::TooSlow
        | ErrorReason::DeadlineExceeded
        | ErrorReason::Draining
        | ErrorReason::MoveOn
        | ErrorReason::UploadsStopped
        | ErrorReason::InjectedFault
        | ErrorReason::CredentialMissing
        | ErrorReason::CredentialExpired
        | ErrorReason::CredentialInvalid
        | ErrorReason::RoleMissing
        | ErrorReason::NotOffered => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use upload_gateway_core::error::{Kind, Reason};

    use super::*;
    use crate::status::grpc_status;

    async fn is_fault_of_call(error: Error) -> bool {
        let outcome = Arc::new(Outcome::default());
        let call = async { grpc_status(&error) };
        call::scope(Arc::clone(&outcome), call).await;
        outcome.is_fault()
    }

    #[tokio::test]
    async fn only_faults_of_the_service_make_a_call_a_fault() {
        let overloaded = || {
            Error::new(
                Kind::ResourceExhausted,
                Reason::Overloaded,
                "too many streams",
            )
        };
        for (error, expected) in [
            (Error::state_unavailable("down"), true),
            (Error::internal("read", "disk"), true),
            (overloaded(), true),
            (overloaded().with("limit", "max_calls"), true),
            (overloaded().with("limit", "per_owner.max_lists"), false),
            (Error::upload_not_found("u"), false),
            (
                Error::new(Kind::Unavailable, Reason::Draining, "shutting down"),
                false,
            ),
            (
                Error::new(Kind::Cancelled, Reason::ClientGone, "left"),
                false,
            ),
        ] {
            let shown = error.to_string();
            assert_eq!(is_fault_of_call(error).await, expected, "{shown}");
        }
    }
}
