//! Lists uploads, the caller's own or others' of a tenant, newest first, page by page, and filters them.
//!
//! A page is bounded three times: by the number of uploads, by the records that are read for it, and by the bytes of its
//! encoded form, which the edges measure.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

use super::{Caller, Records, Scope, is_visible};
use crate::{
    error::{Error, Result},
    state::{Cursor, ListPage, ListQuery},
    upload::{Phase, Upload},
};

/// The largest number of uploads, and of parts, on a page.
pub const MAX_PAGE_LENGTH: usize = 1_000;

/// The largest size of an encoded page, in bytes: a quarter of what gRPC clients accept by default.
pub const MAX_PAGE_SIZE: usize = 1024 * 1024;

/// How many records a page with filters reads at most.
pub const SEARCHED_UPLOADS: usize = 1_000;

/// The largest number of uploads that a page can skip.
pub const MAX_SKIPPED: usize = 10_000;

/// How much of [`MAX_PAGE_SIZE`] is for what encloses the uploads, such as the token of the next page.
const ENVELOPE: usize = 512;

/// The filters of a listing. An upload must match all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Whose uploads.
    pub scope: Scope,
    /// Only uploads in this phase.
    pub phase: Option<Phase>,
    /// Only uploads in this storage.
    pub storage_id: Option<String>,
    /// Only uploads with all of these tags. As in the file name, normal forms of Unicode are the same.
    pub tags: Vec<String>,
    /// Only uploads with this text in the file name. Upper and lower case are the same.
    pub file_name: Option<String>,
}

/// A search whose texts are prepared for comparison.
struct Matcher<'a> {
    search: &'a Search,
    tags: Vec<Cow<'a, str>>,
    file_name: Option<String>,
}

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
    /// The uploads, newest first, with a summary of their parts.
    pub uploads: Vec<Upload>,
    /// How many matches come before the first upload.
    pub first: u64,
    /// How many uploads match in all. `None` without filters, see [`Records::count_uploads`], and if older uploads were
    /// not read.
    pub total: Option<u64>,
    /// Where the next page starts; `None` on the last page. A page with filters can be empty and still have a next page.
    pub next: Option<Start>,
}

// === impl Search ===

impl Search {
    /// Whether every upload matches.
    pub fn matches_all(&self) -> bool {
        let all = Self {
            scope: self.scope.clone(),
            ..Self::default()
        };
        *self == all
    }

    fn matcher(&self) -> Matcher<'_> {
        Matcher {
            search: self,
            tags: self.tags.iter().map(|tag| nfc(tag)).collect(),
            file_name: self.file_name.as_deref().map(folded),
        }
    }
}

// === impl Matcher ===

impl Matcher<'_> {
    fn matches(&self, upload: &Upload) -> bool {
        let (search, file) = (self.search, &upload.file);
        let has = |tag: &Cow<'_, str>| file.tags.iter().any(|known| nfc(known) == *tag);
        let storage_id = search.storage_id.as_ref();
        let file_name = self.file_name.as_ref();
        search.phase.is_none_or(|phase| phase == upload.phase)
            && storage_id.is_none_or(|id| *id == upload.storage_id)
            && self.tags.iter().all(has)
            && file_name.is_none_or(|text| folded(&file.file_name).contains(text))
    }
}

/// The text in Unicode's normal form C. Some systems write an accented letter as two characters, others as one.
fn nfc(text: &str) -> Cow<'_, str> {
    ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

/// The text without differences of case and of normal form.
fn folded(text: &str) -> String {
    nfc(&text.to_lowercase()).into_owned()
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
        self.uploads.last().map(|last| Start {
            after: Some(Cursor::of(last)),
            skip: 0,
            passed: self.first.saturating_add(self.uploads.len() as u64),
        })
    }
}

// === impl Records ===

impl Records {
    /// Lists up to `limit` of the uploads that match `search`, at least 1. Without filters it reads `limit`
    /// records. With filters it reads the next [`SEARCHED_UPLOADS`] records: it then stops, and the next page continues.
    ///
    /// # Errors
    /// `InvalidArgument` if more than [`MAX_SKIPPED`] uploads are skipped; `PermissionDenied` if the roles of the caller do
    /// not allow the scope; `Unavailable` if the state store is unavailable.
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
        let is_filtered = !search.matches_all();
        let (skip, read) = match is_filtered {
            true => (0, SEARCHED_UPLOADS),
            false => (start.skip, limit),
        };
        let query = ListQuery {
            listing: caller.may_list(&search.scope)?,
            after: start.after.clone(),
            skip,
            limit: read,
        };
        let mut page = self.listing.list(&query).await?;
        page.uploads.retain(is_visible);
        Ok(match is_filtered {
            true => filtered(page, search, &start, limit),
            false => unfiltered(page, &start),
        })
    }

    /// How many uploads are in the scope, according to the listing.
    ///
    /// # Errors
    /// `PermissionDenied` if the roles of the caller do not allow the scope; `Unavailable` if the state store is unavailable.
    pub async fn count_uploads(&self, caller: &Caller, scope: &Scope) -> Result<u64> {
        self.listing.count(&caller.may_list(scope)?).await
    }
}

fn unfiltered(page: ListPage, start: &Start) -> Found {
    let first = start.first();
    let passed = first.saturating_add(page.uploads.len() as u64);
    Found {
        uploads: page.uploads,
        first,
        total: None,
        next: page.next.map(|cursor| Start {
            after: Some(cursor),
            skip: 0,
            passed,
        }),
    }
}

/// The matches on `page`, of which those before `start.skip` are skipped.
fn filtered(page: ListPage, search: &Search, start: &Start, limit: usize) -> Found {
    let (uploads, matcher) = (page.uploads.into_iter(), search.matcher());
    let matches: Vec<Upload> = uploads.filter(|upload| matcher.matches(upload)).collect();
    let matched = matches.len();
    let shown = matches.into_iter().skip(start.skip).take(limit);
    let mut found = Found {
        uploads: shown.collect(),
        first: start.first(),
        ..Found::default()
    };
    let read = start.passed.saturating_add(matched as u64);
    found.total = page.next.is_none().then_some(read);
    found.next = match page.next {
        // The uploads that follow on this page may match, too.
        _ if start.skip + found.uploads.len() < matched => found.after_last(),
        Some(last) => Some(Start {
            after: Some(last),
            skip: start.skip.saturating_sub(matched),
            passed: read,
        }),
        None => None,
    };
    found
}
