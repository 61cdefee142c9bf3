//! A create that finds the upload of an identical one: the client continues it, or a new upload is made.

use super::{
    Signing,
    check::{check_session, is_direct},
    step::SignedStep,
};
use crate::{
    error::Result,
    gateway::{records::Fence, storage::Storage},
    upload::{Event, MAX_CUT, Phase, Present, Upload},
};

// === impl Signing ===

impl Signing {
    /// The step that continues the upload of an identical create. `None` if that upload has ended, and a new one must
    /// be created.
    pub(super) async fn resume_signed(&self, mut upload: Upload) -> Result<Option<SignedStep>> {
        if upload.phase == Phase::Committing {
            return match self.commits.join(upload).await {
                Err(error) if error.is_retryable() => Err(error),
                _ => Ok(None),
            };
        }
        // The upload stays in its own storage, even if the default storage has changed.
        let storage = self.storages.get(&upload.storage_id)?;
        if self.is_over(&storage, &mut upload).await? {
            return Ok(None);
        }
        if upload.cut > MAX_CUT && self.make_room(&upload).await? {
            return Ok(None);
        }
        if is_direct(&storage, &upload) || check_session(&storage, &upload).is_err() {
            return self.first_step(&storage, &upload).await.map(Some);
        }
        self.admit_clients(&mut upload).await?;
        match self.inspector.stored_parts(&storage, &upload).await? {
            Some(present) if present.has_nothing() && upload.session.is_none() => {
                self.first_step(&storage, &upload).await.map(Some)
            }
            // Also without parts: two clients that begin the same file share one session.
            Some(present) => self.continued(&storage, upload, present).await.map(Some),
            // It may have been committed in the meantime.
            None if self.is_over(&storage, &mut upload).await? => Ok(None),
            None => {
                // A stream that still writes to the lost session must not record parts.
                if let Some(mut upload) = self.records.fence(&upload).await? {
                    self.inspector.supersede(&mut upload).await?;
                }
                Ok(None)
            }
        }
    }

    /// The step of a client that continues an upload with these parts.
    async fn continued(
        &self,
        storage: &Storage,
        mut upload: Upload,
        mut present: Present,
    ) -> Result<SignedStep> {
        if present.is_mixed {
            // All parts are sent again, and these must not count any more.
            let recut = Event::Recut { cut: upload.cut };
            self.records
                .transition(&mut upload, &recut, Fence::None)
                .await?;
        }
        if upload.is_cut_by_client {
            let unproven = present.take_unproven(&upload).or(upload.unproven);
            let with = u32::try_from(present.parts.len()).unwrap_or(u32::MAX);
            let continued = Event::Continued { with, unproven };
            self.records
                .transition(&mut upload, &continued, Fence::None)
                .await?;
        }
        self.present_step(storage, &upload, &present).await
    }

    /// Makes room in the create index for another upload of the same file. Returns `false` if the upload is not OPEN any
    /// more.
    async fn make_room(&self, upload: &Upload) -> Result<bool> {
        let Some(mut upload) = self.records.fence(upload).await? else {
            return Ok(false);
        };
        self.records
            .transition(&mut upload, &Event::Superseded, Fence::Writer)
            .await?;
        Ok(true)
    }

    /// Whether the upload has ended: a client has made its object, or a wrong one.
    async fn is_over(&self, storage: &Storage, upload: &mut Upload) -> Result<bool> {
        match self.inspector.find_committed(storage, upload).await {
            Err(error) if error.is_retryable() || upload.is_live() => Err(error),
            Err(_) => Ok(true),
            found => found,
        }
    }
}
