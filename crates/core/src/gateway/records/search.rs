//! Searches the caller's newest uploads.

use super::{Caller, Records};
use crate::{
    error::{Error, Result},
    upload::Upload,
};

/// How many of the newest uploads a search with filters reads. Also the largest offset.
pub const SEARCHED_UPLOADS: usize = 10_000;

/// How many uploads are read in one page.
const PAGE: usize = 1_000;

/// The filters of a search. An upload must match all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Only uploads in this storage.
    pub storage_id: Option<String>,
    /// Only uploads with all of these tags.
    pub tags: Vec<String>,
    /// Only uploads with this text in the file name. Upper and lower case are the same.
    pub file_name: Option<String>,
}

/// The result of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The requested page of uploads, newest first, without their parts.
    pub uploads: Vec<Upload>,
    /// How many uploads match, among those that were read.
    pub total: u64,
}

// === impl Search ===

impl Search {
    fn matches(&self, upload: &Upload) -> bool {
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
    /// Searches the caller's uploads, skips the first `offset` matches and returns up to `limit` of the following ones.
    ///
    /// Without filters, the total counts all of the caller's uploads. With filters, it counts the matches among the
    /// newest [`SEARCHED_UPLOADS`].
    ///
    /// # Errors
    /// `InvalidArgument` if the offset is larger than [`SEARCHED_UPLOADS`]; `Unavailable` if the state store is
    /// unavailable.
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
        let matches_all = *search == Search::default();
        let mut unread = if matches_all {
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
                if search.matches(&upload) {
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
        if matches_all {
            found.total = self.count(&caller.owner).await?;
        }
        Ok(found)
    }
}
