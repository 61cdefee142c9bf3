//! The audit log: a line for each action that makes, ends or shows a file, and for each one that is refused. Its target is
//! `audit`. The span of the call adds the request id and the peer.

use crate::{
    error::Error,
    upload::{Owner, UploadId},
};

/// The target of the lines.
const TARGET: &str = "audit";

/// Logs an action of a caller, who is the owner of its own uploads, and why it failed.
pub(super) fn audit<T>(
    owner: &Owner,
    action: &'static str,
    upload_id: Option<&UploadId>,
    result: &Result<T, Error>,
) {
    let (tenant, subject) = (&*owner.tenant, &*owner.subject);
    let upload_id = upload_id.map(tracing::field::display);
    match result {
        Ok(_) => {
            tracing::info!(target: TARGET, tenant, subject, action, upload_id, result = "ok", "audit");
        }
        Err(error) => {
            let reason = error.reason();
            tracing::info!(target: TARGET, tenant, subject, action, upload_id, result = "failed", ?reason, "audit");
        }
    }
}
