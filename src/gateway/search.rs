//! Finding uploads among the caller's newest.

use super::{Caller, Gateway};
use crate::{
    error::{Error, Result},
    upload::Upload,
};

/// A search with filters looks at so many of the newest uploads.
pub const SEARCHED_UPLOADS: usize = 10_000;

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

impl Gateway {
    /// Searches the caller's uploads and returns `limit` of them behind the first `offset`.
    ///
    /// # Errors
    /// The state store is away.
    pub async fn search_uploads(
        &self,
        caller: &Caller,
        search: &Search,
        limit: usize,
        offset: usize,
    ) -> Result<Found> {
        Err(Error::fault("not there yet"))
    }
}
