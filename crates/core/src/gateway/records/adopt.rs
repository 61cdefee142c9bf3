//! Gives uploads that were made without authentication to an owner.

use serde::Serialize;

use super::{Fence, Records, search::MAX_PAGE_LENGTH};
use crate::{
    error::{Reason, Result},
    state::{ListQuery, Listing, Update},
    upload::{Event, Owner, Phase, Upload},
};

/// How often an upload that changes at the same time is tried.
const ATTEMPTS: usize = 8;

/// What an adoption has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AdoptReport {
    /// The uploads that have the new owner now, or would have it.
    pub adopted: u64,
    /// The uploads that changed again and again. Another adoption finds them.
    pub busy: u64,
}

// === impl Records ===

impl Records {
    /// Gives all uploads without an owner to `owner`. They can then be resumed by their ids only: an identical create does not
    /// find them, and their resume tokens, which are bound to the owner, are void. With `dry_run`, only counts them.
    ///
    /// # Errors
    /// Those of the state store. What was adopted before stays adopted.
    pub async fn adopt(&self, owner: &Owner, dry_run: bool) -> Result<AdoptReport> {
        let mut report = AdoptReport::default();
        let mut after = None;
        loop {
            let query = ListQuery {
                listing: Listing::Owner(Owner::default()),
                after,
                skip: 0,
                limit: MAX_PAGE_LENGTH,
            };
            let page = self.listing.list(&query).await?;
            for upload in page.uploads {
                match dry_run || self.adopt_one(upload, owner).await? {
                    true => report.adopted += 1,
                    false => report.busy += 1,
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(report);
            }
        }
    }

    /// Whether the upload has the new owner, or does not exist any more.
    async fn adopt_one(&self, mut upload: Upload, owner: &Owner) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            self.keep_given(&mut upload, owner).await?;
            match self.records.give(&upload, owner).await? {
                Update::Updated(_) | Update::Missing => return Ok(true),
                Update::Conflict(current) => upload = *current,
            }
        }
        Ok(false)
    }

    /// Writes what the store keeps of the record with its new owner, before the record has it: an adoption that stops does not find
    /// the upload again.
    async fn keep_given(&self, upload: &mut Upload, owner: &Owner) -> Result<()> {
        if upload.is_live() {
            let amended = self.transition(upload, &Event::Amended, Fence::None).await;
            // It may have ended meanwhile.
            if upload.is_live() {
                return amended;
            }
        }
        if upload.phase != Phase::Complete {
            return Ok(());
        }
        let given = Upload {
            owner: owner.clone(),
            ..upload.clone()
        };
        match self.kept.keep(&given).await {
            // Its store is not used any more.
            Err(error) if error.reason() == Reason::StorageNotFound => Ok(()),
            kept => kept.map(|_| ()),
        }
    }
}
