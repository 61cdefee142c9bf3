//! Retries of one call or one request.

use std::mem;

use super::progress::Progress;
use crate::{error::ClientError, retry::BackOff};

/// Decides whether to try again, and waits.
#[derive(Debug)]
pub(super) struct Retries {
    back_off: BackOff,
    was_forbidden: bool,
}

// === impl Retries ===

impl Retries {
    /// Stops when `back_off` does.
    pub(super) fn new(back_off: BackOff) -> Self {
        Self {
            back_off,
            was_forbidden: false,
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure itself if the next try would fail, too; `NoProgress` after the retry timeout.
    pub(super) async fn retry(
        &mut self,
        progress: &Progress,
        failure: ClientError,
    ) -> Result<(), ClientError> {
        // Stores answer 403 to an expired signature, too.
        let is_forbidden = failure.store_status() == Some(403);
        let may_have_expired = is_forbidden && !mem::replace(&mut self.was_forbidden, true);
        if may_have_expired || failure.is_resumable() {
            return self.wait(progress, failure).await;
        }
        Err(failure)
    }

    /// Waits before the next try, whatever the failure.
    ///
    /// # Errors
    /// `NoProgress` after the retry timeout.
    pub(super) async fn wait(
        &mut self,
        progress: &Progress,
        failure: ClientError,
    ) -> Result<(), ClientError> {
        let requested = failure.retry_delay();
        let id = progress.upload_id();
        let stored = (id.as_deref(), progress.stored());
        let events = progress.events();
        self.back_off.wait(stored, failure, requested, events).await
    }
}
