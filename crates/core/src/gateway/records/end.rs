//! The line of the log for each upload that ends.

use std::time::Duration;

use crate::{
    escape::escaped,
    upload::{AbortReason, Phase, Timestamp, Upload},
};

/// Logs that `upload` has just become COMPLETE or ABORTED. Called by the one update that ended it, so the logs of all
/// replicas have one line for each upload.
pub(super) fn log(upload: &Upload, now: Timestamp) {
    let object_size = upload.object.as_ref().map(|object| object.size);
    let known_size = upload.file.file_size.unwrap_or(upload.committed_size());
    let milliseconds = now.0.saturating_sub(upload.created_at.0);
    tracing::info!(
        upload_id = %upload.id,
        owner = upload.owner.to_string(),
        storage = upload.storage_id,
        name = %escaped(&upload.file.file_name),
        size = object_size.unwrap_or(known_size),
        seconds = Duration::from_millis(milliseconds).as_secs_f64(),
        attempts = upload.attempts,
        result = result(upload),
        "an upload ended"
    );
}

/// How it ended: the phase COMPLETE or the reason of the abort, in lower case.
pub(super) fn result(upload: &Upload) -> &'static str {
    match upload.abort_reason {
        _ if upload.phase == Phase::Complete => "complete",
        None => "aborted",
        Some(AbortReason::Deleted) => "deleted",
        Some(AbortReason::Restarted) => "restarted",
        Some(AbortReason::Expired) => "expired",
        Some(AbortReason::SessionLost) => "session_lost",
        Some(AbortReason::PartReplaced) => "part_replaced",
        Some(AbortReason::DigestMismatch) => "digest_mismatch",
        Some(AbortReason::CommitFailed) => "commit_failed",
    }
}
