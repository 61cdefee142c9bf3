//! The ports to the state store, which keeps the records of all uploads.
//!
//! Adapters store and compare. [`crate::upload`] decides what may happen to a record. Every call may be repeated after
//! a lost response; it then returns what the first call would have returned. An unreachable store is `Unavailable`
//! ([`Error::is_retryable`](crate::error::Error::is_retryable)). A stored value that cannot be read is `Internal`.
//!
//! Adapters implement [`StateStore`], the whole port. Each use case takes only the narrow port that it needs.

mod changes;
mod entry;
mod memory;
mod note;
mod notices;
mod takeovers;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

pub use self::{
    changes::{ChangeWatch, Changes},
    entry::{Created, Entry, Index, Selection, folded, listings, nfc},
    memory::{Memory, MemoryStore, Sample},
    note::Note,
    takeovers::{TakeoverWatch, Takeovers},
};
use crate::{
    error::Result,
    upload::{Claim, Owner, Part, Phase, Secret, Timestamp, Upload, UploadId, WriterTag},
};

/// How long the record of a live upload is kept after its `expires_at`: 7 days, in seconds. The sweeper ends the upload before
/// the store removes the record.
pub const RECORD_GRACE_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The whole port. When a write returns, it is as durable as the store guarantees.
#[async_trait]
pub trait StateStore:
    RecordStore + PartStore + ListingStore + ScheduleStore + NoteStore + MemoryStore
{
    /// The secret of the deployment: the secret that the first caller offered, for all callers.
    async fn secret(&self, offered: &Secret) -> Result<Secret>;

    /// Checks that the store answers and accepts writes.
    async fn check(&self) -> Result<()>;

    /// Whether this process can use the store as soon as the store works again. `false` if only a restart may help: the
    /// embedded store could not open its file again.
    fn is_usable(&self) -> bool;
}

/// Creates, reads and changes records, and replaces their writers.
///
/// Of an upload that has been COMPLETE for some time, a store may forget what only a live one needs: fingerprint, session, origin
/// and the times at which it would have expired.
#[async_trait]
pub trait RecordStore: Send + Sync + Debug {
    /// Stores a new record and, if it has a fingerprint, its index entry, in one atomic step.
    ///
    /// If a live upload (OPEN or COMMITTING) has the same fingerprint, that upload is returned and nothing is stored.
    /// If a record with the same id exists, an earlier response was lost, and the result is [`Creation::Created`].
    /// Otherwise, if the owner has `max_live` live uploads or more, nothing is stored. An owner without a tenant may have any
    /// number.
    async fn create(&self, upload: &Upload, max_live: u64) -> Result<Creation>;

    /// The upload that [`create`](Self::create) would find instead of storing `upload`: the live one with the same
    /// fingerprint, if there is one.
    async fn find_identical(&self, upload: &Upload) -> Result<Option<Upload>>;

    /// Reads a record with all its parts and claims. A large record takes several round trips, and as long as its pages
    /// arrive. Use [`summary`](Self::summary) if the parts are not needed.
    async fn get(&self, id: &UploadId) -> Result<Option<Upload>>;

    /// Reads a record without claims, with a [summary](crate::upload::Parts::summary) of its parts: their counts, and the
    /// last committed part. Takes one short round trip, whatever the number of parts.
    async fn summary(&self, id: &UploadId) -> Result<Option<Upload>>;

    /// As [`summary`](Self::summary), and announces that this process watches the record: for at least 10 seconds,
    /// changes of the record are reported to [`watch_changes`](Self::watch_changes).
    async fn observe(&self, id: &UploadId) -> Result<Option<Upload>>;

    /// Watches for changes of a record on any replica, after [`observe`](Self::observe). Notifications are hints and can
    /// be missed. Claims and heartbeats are not reported.
    fn watch_changes(&self, id: &UploadId) -> ChangeWatch;

    /// Makes `writer` the writer of the upload, if the upload is OPEN and `from` allows its current writer to be
    /// replaced. In one step: later calls of [`record_parts`](PartStore::record_parts) by any other writer fail, parts
    /// after a gap are dropped, `updated_at` and `expires_at` are set, the version is incremented, and so are `attempts`
    /// unless `writer` was the writer already. Notifies
    /// [watchers](Self::watch_takeovers) and returns the new record. If the phase or the current writer does not allow
    /// it, returns the record unchanged.
    async fn take_over(
        &self,
        id: &UploadId,
        writer: WriterTag,
        from: Predecessor,
        times: Times,
    ) -> Result<Option<Upload>>;

    /// Watches for takeovers of an upload on any replica. Notifications are hints and can be missed: the writer in the
    /// record decides.
    fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch;

    /// Replaces everything in a record except its parts and claims, if the stored version is `upload.version` and the
    /// stored writer is `writer`. The stored version then increases by one. The writer is compared too, because a state
    /// store that was rolled back can reach the same version twice. If the upload leaves OPEN and COMMITTING, its index
    /// entry, its parts and its claims are removed in the same step. Such an update succeeds even if the store is full. An
    /// upload that is DELETING leaves the listings. If the record already has exactly this content under the next version, an
    /// earlier response was lost, and the result is [`Update::Updated`].
    async fn update(&self, upload: &Upload, writer: Option<WriterTag>) -> Result<Update>;

    /// As [`update`](Self::update), keeping the writer, but only if the stored `updated_at` is `seen`: no part and no
    /// claim was recorded since. Otherwise it is a conflict.
    async fn update_untouched(&self, upload: &Upload, seen: Timestamp) -> Result<Update>;

    /// Gives an upload to another owner, if the stored version and writer are those of `upload`. The version increases by one.
    /// The upload leaves the listings of its owner for those of the new one, and its fingerprint is removed: creates of
    /// neither owner find it.
    async fn give(&self, upload: &Upload, owner: &Owner) -> Result<Update>;
}

/// Parts that streams record, and claims of clients that put parts into the store themselves.
#[async_trait]
pub trait PartStore: Send + Sync + Debug {
    /// Records parts that the store has acknowledged, if the upload is OPEN, its writer is `writer`, and its version is
    /// at least `version`, the latest that the writer knows. Records all parts or none, in one round trip. A part
    /// replaces the recorded part with the same number. The version does not change, so that parts recorded at the same
    /// time do not conflict. Sets `updated_at` and `expires_at`. Without parts, the call is the heartbeat of an active
    /// writer.
    async fn record_parts(
        &self,
        id: &UploadId,
        writer: WriterTag,
        version: u64,
        parts: &[Part],
        times: Times,
    ) -> Result<PartRecord>;

    /// Reads up to `limit` committed parts by number, starting after number `after`. `None` if there is no such record.
    async fn committed_parts(
        &self,
        id: &UploadId,
        after: u32,
        limit: u32,
    ) -> Result<Option<Vec<Part>>>;

    /// Records claims of a client, if the upload belongs to `owner`, is OPEN, and its plan contains every claimed
    /// number ([`Upload::part_count`]), whatever is claimed or recorded at the same time. A claim that
    /// [contradicts](crate::upload::Parts::contradict) a recorded part is left out. Sets `updated_at` and `expires_at`;
    /// the version does not change. A claim replaces an earlier one as [`Claim::replaces`] says; a signed one gets the present
    /// [cut](Upload::cut).
    ///
    /// If [clients choose the part size](Upload::is_cut_by_client), another MD5 of a part that was signed in this cut begins
    /// the next cut, and the [unproven](Upload::unproven) part is proven when it is signed again, all in the same step.
    ///
    /// Up to 1,000 claims are recorded in one step and one round trip. More claims can take several steps, each of
    /// which checks owner, phase and plan again. If a later step is rejected or its response is lost, the earlier steps
    /// remain recorded.
    ///
    /// Returns a summary of the record after the call: its last committed part, the parts with the claimed numbers as
    /// each step found them, and no claims. `None` if `owner` has no such upload.
    async fn claim(
        &self,
        id: &UploadId,
        owner: &Owner,
        claims: &[Claim],
        times: Times,
    ) -> Result<Option<Upload>>;
}

/// Lists the uploads of an owner or of a tenant, and finds entries in the indexes of a listing.
#[async_trait]
pub trait ListingStore: Send + Sync + Debug {
    /// Reads the first `limit` entries of a listing that the query selects, newest first: each upload with a
    /// [summary](crate::upload::Parts::summary) of its parts. Takes two round trips: one for the ids, one for all
    /// records. The listing is a hint: an entry whose record does not exist any more counts, but is not returned. So a
    /// page can have fewer than `limit` uploads, or none, and still have a next page.
    async fn list(&self, query: &ListQuery) -> Result<ListPage>;

    /// The number of uploads in a listing. Like the listing, it is a hint.
    async fn count(&self, listing: &Listing) -> Result<u64>;

    /// The first `limit` entries that the selection has after `after`, in the order of its index. Takes one round trip, and
    /// reads no record. An index is a hint: an entry may be missing or out of date, also one whose record does not exist any
    /// more. The sweeper adds and corrects entries.
    async fn entries(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Entry>>;

    /// The number of entries in a selection, like them a hint. Takes one round trip.
    async fn count_entries(&self, selection: &Selection) -> Result<u64>;

    /// The uploads with these ids that exist, in their order, as [`RecordStore::summary`] reads them. Takes one round trip.
    async fn summaries(&self, ids: &[UploadId]) -> Result<Vec<Upload>>;

    /// The number of live uploads (OPEN or COMMITTING) of all owners. It is the size of an index, so a hint, and costs
    /// the same however many there are.
    async fn count_live(&self) -> Result<u64>;
}

/// What the sweeper needs: the index of due uploads, and leases.
#[async_trait]
pub trait ScheduleStore: Send + Sync + Debug {
    /// Finds uploads that were due ([`Upload::due_at`]) by `before`, earliest first, after the entry `after`. A page
    /// can have fewer than `limit` uploads, or none, and still have a next page. The index is a hint: this call checks
    /// each entry against its record and corrects it. It also removes, in bounded steps, entries of indexes and listings
    /// whose record does not exist any more. A lost entry is added again when its upload is next opened.
    async fn due(&self, before: Timestamp, after: Option<&Due>, limit: usize) -> Result<DuePage>;

    /// Acquires the lease `name` for `holder`, for `lasts` from now by the clock of the store, or renews it if `holder`
    /// has it. Returns whether `holder` has it now.
    async fn lease(&self, name: &str, holder: &str, lasts: Duration) -> Result<bool>;

    /// Releases a lease, if `holder` has it.
    async fn release(&self, name: &str, holder: &str) -> Result<()>;
}

/// Keeps notes: small texts that all replicas share.
#[async_trait]
pub trait NoteStore: Send + Sync + Debug {
    /// The text of a note; `None` before the first one.
    async fn note(&self, note: &Note) -> Result<Option<String>>;

    /// Stores `text` in place of `seen`, unless another one is stored now. Returns whether `text` is stored. Succeeds even if
    /// the store is full.
    async fn replace_note(&self, note: &Note, seen: Option<&str>, text: &str) -> Result<bool>;
}

/// The times that a write sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The new `updated_at`.
    pub now: Timestamp,
    /// The new `expires_at`.
    pub expires_at: Timestamp,
}

/// Which current writer a new writer may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Any writer, or no writer.
    Any,
    /// Only this writer, or with `None` only if the upload has no writer.
    Only(Option<WriterTag>),
}

/// The result of creating a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// The record is stored.
    Created,
    /// A live upload with the same fingerprint exists: this one, with its parts.
    Exists(Box<Upload>),
    /// The owner has too many live uploads. Nothing is stored.
    Full,
}

/// The result of recording parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartRecord {
    /// The parts are recorded, by this call or an earlier one.
    Recorded {
        /// The number of committed parts: those of the contiguous prefix.
        committed: u32,
    },
    /// Another stream has taken over the upload, and may have finished it.
    TakenOver,
    /// The upload is not OPEN any more, and its writer has not changed.
    NotOpen(Phase),
    /// There is no such record, or only one that is older than the writer knows.
    Missing,
}

/// The result of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The record is stored, with this version.
    Updated(u64),
    /// The record has changed: its current content, with its parts.
    Conflict(Box<Upload>),
    /// There is no such record.
    Missing,
}

/// Whose uploads a listing has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// Those of one owner.
    Owner(Owner),
    /// Those of all owners in a tenant, which is not empty.
    Tenant(String),
}

/// Which entries of a listing to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// The listing.
    pub listing: Listing,
    /// Only entries after this position.
    pub after: Option<Cursor>,
    /// How many entries after that position are skipped. Their records are not read.
    pub skip: usize,
    /// The largest number of entries on the page, at least 1.
    pub limit: usize,
}

/// A position in a listing or in an index of it, which are sorted by creation, newest first, and then by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// When the last upload on the page was created.
    pub created_at: Timestamp,
    /// The id of that upload.
    pub id: UploadId,
    /// Its [folded] name, if [that](Index::Name) is the order before creation.
    pub name: Option<String>,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The uploads.
    pub uploads: Vec<Upload>,
    /// The position after which the next page starts; `None` on the last page.
    pub next: Option<Cursor>,
}

// === impl Listing ===

impl Listing {
    /// Whether the uploads of `owner` are in the listing.
    pub fn has(&self, owner: &Owner) -> bool {
        match self {
            Self::Owner(listed) => listed == owner,
            Self::Tenant(tenant) => *tenant == owner.tenant,
        }
    }
}

impl From<Owner> for Listing {
    fn from(owner: Owner) -> Self {
        Self::Owner(owner)
    }
}

// === impl Cursor ===

impl Cursor {
    /// The position of `upload` in a listing.
    pub fn of(upload: &Upload) -> Self {
        Self {
            created_at: upload.created_at,
            id: upload.id.clone(),
            name: None,
        }
    }
}

/// A due upload, and a position in the index of due uploads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When it became due, according to the index.
    pub at: Timestamp,
    /// The id of the upload.
    pub id: UploadId,
}

/// One page of due uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DuePage {
    /// The uploads.
    pub uploads: Vec<UploadId>,
    /// The position at which the next page starts; `None` on the last page.
    pub next: Option<Due>,
}

/// When a store may remove the record.
pub fn removed_at(upload: &Upload) -> Timestamp {
    match (upload.phase, upload.kept_until) {
        (Phase::Open | Phase::Committing, _) | (Phase::Aborted | Phase::Deleting, None) => {
            removal_time(upload.expires_at)
        }
        (_, Some(kept_until)) => kept_until,
        (Phase::Complete, None) => Timestamp::never(),
    }
}

/// When a store may remove the record of an upload that expires then.
pub fn removal_time(expires_at: Timestamp) -> Timestamp {
    expires_at.plus(Duration::from_secs(RECORD_GRACE_SECONDS))
}
