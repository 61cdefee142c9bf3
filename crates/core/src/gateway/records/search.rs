//! Lists uploads, the caller's own or others' of a tenant, newest first, page by page, and filters them.
//!
//! A page is bounded three times: by the number of uploads, by the entries of indexes that are looked at, and by the bytes of
//! its encoded form, which the edges measure. Filters are applied to the entries of one index, so only the records of the
//! answer are read.

mod filters;

pub use self::filters::Search;
use super::{Caller, Records, Scope, is_visible};
use crate::{
    error::{Error, Result},
    state::{Cursor, Entry, ListPage, ListQuery, Listing},
    upload::{Upload, UploadId},
};

/// The largest number of uploads, and of parts, on a page.
pub const MAX_PAGE_LENGTH: usize = 1_000;

/// The largest size of an encoded page, in bytes: a quarter of what gRPC clients accept by default.
pub const MAX_PAGE_SIZE: usize = 1024 * 1024;

/// How many entries of an index a page with filters looks at, at most.
pub const SEARCHED_UPLOADS: usize = 10_000;

/// The largest number of uploads that a page can skip.
pub const MAX_SKIPPED: usize = 10_000;

/// How much of [`MAX_PAGE_SIZE`] is for what encloses the uploads, such as the token of the next page.
const ENVELOPE: usize = 512;

/// Where a page starts. By default at the newest upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// After this position.
    pub after: Option<Cursor>,
    /// How many matches after that position are skipped, at most [`MAX_SKIPPED`].
    pub skip: usize,
    /// How many matches come before that position.
    pub passed: u64,
}

/// A page of uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The uploads with a summary of their parts, newest first, or by name.
    pub uploads: Vec<Upload>,
    /// Whether they are ordered by name.
    pub is_by_name: bool,
    /// How many matches come before the first upload.
    pub first: u64,
    /// How many uploads match in all. `None` without filters, and if older uploads were not looked at; see
    /// [`Records::count_uploads`].
    pub total: Option<u64>,
    /// Where the next page starts; `None` on the last page. A page with filters can be empty and still have a next page.
    pub next: Option<Start>,
}

// === impl Start ===

impl Start {
    /// How many matches come before the first one that is not skipped.
    fn first(&self) -> u64 {
        // A caller may have made up the numbers.
        self.passed.saturating_add(self.skip as u64)
    }
}

// === impl Found ===

impl Found {
    /// Drops the uploads at the end that do not fit into a page of [`MAX_PAGE_SIZE`]; the next page starts with them.
    /// `sizes` are those of the encoded uploads, in bytes. The first upload always stays.
    pub fn fit(&mut self, sizes: impl IntoIterator<Item = usize>) {
        let mut left = MAX_PAGE_SIZE - ENVELOPE;
        let fits = |size: usize| {
            let rest = left.checked_sub(size);
            left = rest.unwrap_or_default();
            rest.is_some()
        };
        let fitting = sizes.into_iter().map(fits).take_while(|fits| *fits).count();
        if fitting < self.uploads.len() {
            self.uploads.truncate(fitting.max(1));
            self.next = self.after_last();
        }
    }

    /// The start of a page after the last upload.
    fn after_last(&self) -> Option<Start> {
        let position = |upload: &Upload| Entry::of(upload).cursor(self.is_by_name);
        self.uploads.last().map(|last| Start {
            after: Some(position(last)),
            skip: 0,
            passed: self.first.saturating_add(self.uploads.len() as u64),
        })
    }
}

// === impl Records ===

impl Records {
    /// Lists up to `limit` of the uploads that match `search`, at least 1. With filters it looks at the next
    /// [`SEARCHED_UPLOADS`] uploads that an index has: it then stops, and the next page continues. Takes two round trips to the
    /// state store.
    ///
    /// # Errors
    /// `InvalidArgument` if more than [`MAX_SKIPPED`] uploads are skipped, or the position is one of another order;
    /// `PermissionDenied` if the roles of the caller do not allow the scope; `Unavailable` if the state store is unavailable.
    pub async fn list_uploads(
        &self,
        caller: &Caller,
        search: &Search,
        start: Start,
        limit: usize,
    ) -> Result<Found> {
        if start.skip > MAX_SKIPPED {
            return Err(Error::invalid("offset", format!("at most {MAX_SKIPPED}")));
        }
        let listing = caller.may_list(&search.scope)?;
        let is_by_name = search.index().is_by_name();
        let after = start.after.as_ref();
        if after.is_some_and(|after| after.name.is_some() != is_by_name) {
            return Err(Error::invalid("page_token", "not a token of this search"));
        }
        if !search.matches_all() {
            return self.search(listing, search, &start, limit).await;
        }
        let query = ListQuery {
            listing,
            after: start.after.clone(),
            skip: start.skip,
            limit,
        };
        let mut page = self.listing.list(&query).await?;
        page.uploads.retain(is_visible);
        Ok(unfiltered(page, &start))
    }

    async fn search(
        &self,
        listing: Listing,
        search: &Search,
        start: &Start,
        limit: usize,
    ) -> Result<Found> {
        // One more shows whether there is a next page.
        let wanted = start.skip.saturating_add(limit).saturating_add(1);
        let read = match search.is_indexed() {
            true => wanted.min(SEARCHED_UPLOADS),
            false => SEARCHED_UPLOADS,
        };
        let selection = search.selection(listing);
        let entries = self.listing.entries(&selection, start.after.as_ref(), read);
        let entries = entries.await?;
        let matcher = search.matcher();
        let matches: Vec<&Entry> = entries.iter().filter(|one| matcher.matches(one)).collect();
        let shown: Vec<&Entry> = matches
            .iter()
            .copied()
            .skip(start.skip)
            .take(limit)
            .collect();
        let ids: Vec<_> = shown
            .iter()
            .map(|entry| UploadId::from_bytes(entry.id))
            .collect();
        let mut uploads = self.listing.summaries(&ids).await?;
        // An entry may be older than its record.
        uploads.retain(|upload| {
            let is_listed = is_visible(upload) && selection.listing.has(&upload.owner);
            is_listed && matcher.matches(&Entry::of(upload))
        });
        let (is_end, is_by_name) = (entries.len() < read, selection.index.is_by_name());
        let passed = start.passed.saturating_add(matches.len() as u64);
        let continues = |entry: &&Entry, skip, passed| Start {
            after: Some(entry.cursor(is_by_name)),
            skip,
            passed,
        };
        let next = match start.skip.saturating_add(shown.len()) < matches.len() {
            // The entries that follow may match, too.
            true => {
                let passed = start.first().saturating_add(shown.len() as u64);
                shown.last().map(|last| continues(last, 0, passed))
            }
            false => {
                let skip = start.skip.saturating_sub(matches.len());
                let last = entries.last().filter(|_| !is_end);
                last.map(|last| continues(&last, skip, passed))
            }
        };
        Ok(Found {
            uploads,
            is_by_name,
            first: start.first(),
            total: is_end.then_some(passed),
            next,
        })
    }

    /// How many uploads match, if the state store has counted them: without filters, and with filters that one index answers. A
    /// hint.
    ///
    /// # Errors
    /// `PermissionDenied` if the roles of the caller do not allow the scope; `Unavailable` if the state store is unavailable.
    pub async fn count_uploads(&self, caller: &Caller, search: &Search) -> Result<Option<u64>> {
        let listing = caller.may_list(&search.scope)?;
        if search.matches_all() {
            return self.listing.count(&listing).await.map(Some);
        }
        if !search.is_indexed() {
            return Ok(None);
        }
        let selection = search.selection(listing);
        self.listing.count_entries(&selection).await.map(Some)
    }
}

fn unfiltered(page: ListPage, start: &Start) -> Found {
    let first = start.first();
    let passed = first.saturating_add(page.uploads.len() as u64);
    Found {
        uploads: page.uploads,
        is_by_name: false,
        first,
        total: None,
        next: page.next.map(|cursor| Start {
            after: Some(cursor),
            skip: 0,
            passed,
        }),
    }
}
