//! Finding uploads among the caller's newest.

use super::{Caller, Records};
use crate::{
    error::{Error, Result},
    upload::Upload,
};

/// A search with filters looks at so many of the newest uploads. Also the largest offset.
pub const SEARCHED_UPLOADS: usize = 10_000;

/// The most uploads that are read at once.
const PAGE: usize = 1_000;

/// Which uploads are looked for; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// In this storage.
    pub storage_id: Option<String>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// With this text in the file's name, whatever the case.
    pub file_name: Option<String>,
}

/// Uploads that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The uploads asked for, newest first, without their parts.
    pub uploads: Vec<Upload>,
    /// How many there are in all, among those that were looked at.
    pub total: u64,
}

// === impl Search ===

impl Search {
    fn finds(&self, upload: &Upload) -> bool {
        let file = &upload.file;
        let storage_id = self.storage_id.as_ref();
        let file_name = self.file_name.as_ref();
        storage_id.is_none_or(|id| *id == upload.storage_id)
            && self.tags.iter().all(|tag| file.tags.contains(tag))
            && file_name.is_none_or(|text| {
                let text = text.to_lowercase();
                file.file_name.to_lowercase().contains(&text)
            })
    }
}

// === impl Records ===

impl Records {
    /// Searches the caller's uploads and returns `limit` of them behind the first `offset`.
    ///
    /// Without any condition, all of the caller's uploads are in the total; otherwise those among the newest
    /// [`SEARCHED_UPLOADS`] that are found.
    ///
    /// # Errors
    /// `InvalidArgument` for an offset beyond [`SEARCHED_UPLOADS`]; the state store is away.
    pub async fn search_uploads(
        &self,
        caller: &Caller,
        search: &Search,
        limit: usize,
        offset: usize,
    ) -> Result<Found> {
        if offset > SEARCHED_UPLOADS {
            return Err(Error::invalid(
                "offset",
                format!("at most {SEARCHED_UPLOADS}"),
            ));
        }
        let finds_all = *search == Search::default();
        let mut unread = if finds_all {
            offset.saturating_add(limit)
        } else {
            SEARCHED_UPLOADS
        };
        let mut found = Found::default();
        let mut after = None;
        while unread > 0 {
            let page = self.list_uploads(caller, None, unread.min(PAGE), after);
            let page = page.await?;
            unread = unread.saturating_sub(page.uploads.len());
            for upload in page.uploads {
                if search.finds(&upload) {
                    let wanted = found.total >= offset as u64 && found.uploads.len() < limit;
                    found.total += 1;
                    found.uploads.extend(wanted.then_some(upload));
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if finds_all {
            found.total = self.count(&caller.owner).await?;
        }
        Ok(found)
    }
}
