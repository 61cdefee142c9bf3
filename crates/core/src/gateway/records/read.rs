//! Reads records for callers. A record that the state store has lost is rebuilt from the stores.

use super::Records;
use crate::{
    error::Result,
    gateway::caller::{Action, Caller},
    observe,
    upload::{Part, Upload, UploadId},
};

/// A page of the committed parts of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let mut found = caller.permit(action, id, self.find(id).await?);
        if self.is_rebuilt(caller, id, &found).await? {
            found = caller.permit(action, id, self.find(id).await?);
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
        let mut found = caller.permit(action, id, self.find_summary(id).await?);
        if self.is_rebuilt(caller, id, &found).await? {
            found = caller.permit(action, id, self.find_summary(id).await?);
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
        let mut found = caller.permit(Action::Delete, id, self.records.summary(id).await?);
        if self.is_rebuilt(caller, id, &found).await? {
            found = caller.permit(Action::Delete, id, self.records.summary(id).await?);
        }
        found.inspect(observe::works_on)
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
        let parts = self.committed_parts(id, after, limit).await?;
        let last = parts.last().map(|part| part.number);
        Ok(PartPage {
            next: last.filter(|&last| last < summary.parts.committed()),
            parts,
        })
    }
}
