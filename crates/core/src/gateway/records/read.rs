//! Reads records for callers. A record that the state store has lost is rebuilt from the stores.

use super::{Records, is_visible};
use crate::{
    error::Result,
    gateway::{
        caller::{Action, Caller},
        refusal::moved,
    },
    observe,
    upload::{Part, Upload, UploadId},
};

/// A page of the committed parts of an upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartPage {
    /// The parts, by number.
    pub parts: Vec<Part>,
    /// The number after which the next page starts; `None` on the last page.
    pub next: Option<u32>,
}

// === impl Records ===

impl Records {
    /// Reads an upload with all its parts and claims, for an action of the caller.
    ///
    /// # Errors
    /// `NotFound`, also if the caller must not know of the upload; `PermissionDenied` if its roles do not allow the action.
    pub async fn get_upload(
        &self,
        caller: &Caller,
        action: Action,
        id: &UploadId,
    ) -> Result<Upload> {
        let known = self.find_any(id).await?;
        let exists = known.is_some();
        let mut found = permit(caller, action, id, known);
        let rebuilt = self.rebuilt(caller, action, id, (&found, exists)).await?;
        if let Some(rebuilt) = rebuilt {
            let again = self.find_any(id).await?;
            found = permit(caller, action, id, again.or(Some(rebuilt)));
        }
        found.inspect(observe::works_on)
    }

    /// Reads a summary of an upload, for an action of the caller: see [`RecordStore::summary`](crate::state::RecordStore::summary).
    ///
    /// # Errors
    /// `NotFound`, also if the caller must not know of the upload; `PermissionDenied` if its roles do not allow the action.
    pub async fn get_summary(
        &self,
        caller: &Caller,
        action: Action,
        id: &UploadId,
    ) -> Result<Upload> {
        let known = self.records.summary(id).await?;
        let exists = known.is_some();
        let mut found = permit(caller, action, id, known);
        let rebuilt = self.rebuilt(caller, action, id, (&found, exists)).await?;
        if let Some(rebuilt) = rebuilt {
            let again = self.records.summary(id).await?;
            found = permit(caller, action, id, again.or(Some(rebuilt)));
        }
        found.inspect(observe::works_on)
    }

    /// Reads a summary of an upload that the caller may delete, also if its file is deleted already.
    ///
    /// # Errors
    /// As [`Records::get_summary`].
    pub(in crate::gateway) async fn get_to_delete(
        &self,
        caller: &Caller,
        id: &UploadId,
    ) -> Result<Upload> {
        let known = self.records.summary(id).await?;
        let exists = known.is_some();
        let action = Action::Delete;
        let mut found = caller.permit(action, id, known);
        let rebuilt = self.rebuilt(caller, action, id, (&found, exists)).await?;
        if let Some(rebuilt) = rebuilt {
            let again = self.records.summary(id).await?;
            found = caller.permit(action, id, again.or(Some(rebuilt)));
        }
        match found
            .as_ref()
            .map(|upload| (is_visible(upload), &upload.moves_to))
        {
            Ok((false, Some(to))) => Err(moved(id, to)),
            _ => found.inspect(observe::works_on),
        }
    }

    /// The copy to which the file of an upload has moved. `None` if it has not.
    ///
    /// # Errors
    /// As [`Records::get_summary`].
    pub(in crate::gateway) async fn get_moved(
        &self,
        caller: &Caller,
        id: &UploadId,
    ) -> Result<Option<Upload>> {
        let found = self.records.summary(id).await?;
        let has_moved = |upload: &&Upload| !is_visible(upload);
        let to = found.as_ref().filter(has_moved);
        let Some(to) = to.and_then(|upload| upload.moves_to.clone()) else {
            return Ok(None);
        };
        caller.permit(Action::Send, id, found)?;
        self.get_summary(caller, Action::Read, &to).await.map(Some)
    }

    /// Reads up to `limit` committed parts of an upload that the caller may read, starting after number `after`. Takes two round
    /// trips. The encoded parts of a page of [`MAX_PAGE_LENGTH`](super::search::MAX_PAGE_LENGTH) need less than 100 kB.
    ///
    /// # Errors
    /// As [`Records::get_summary`].
    pub async fn list_parts(
        &self,
        caller: &Caller,
        id: &UploadId,
        after: u32,
        limit: u32,
    ) -> Result<PartPage> {
        let summary = self.get_summary(caller, Action::Read, id).await?;
        if after >= summary.parts.committed() {
            return Ok(PartPage::default());
        }
        let parts = self.committed_parts(id, after, limit).await?;
        let last = parts.last().map(|part| part.number);
        Ok(PartPage {
            next: last.filter(|&last| last < summary.parts.committed()),
            parts,
        })
    }
}

/// The upload that was found, if the caller may do this with it. Of a deleted upload, callers see only to which one its file has moved.
fn permit(caller: &Caller, action: Action, id: &UploadId, found: Option<Upload>) -> Result<Upload> {
    let found = found.filter(|upload| is_visible(upload) || upload.moves_to.is_some());
    let upload = caller.permit(action, id, found)?;
    match &upload.moves_to {
        Some(to) if !is_visible(&upload) => Err(moved(id, to)),
        _ => Ok(upload),
    }
}
