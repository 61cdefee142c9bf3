//! The ports to the state store: the records of all uploads.
//!
//! Adapters store and compare; what may happen to a record is decided by [`crate::upload`]. Every call may be repeated
//! after a lost answer, and then reports what the first call would have reported. An unreachable store is `Unavailable`
//! ([`Error::is_retryable`](crate::error::Error::is_retryable)); a stored value that cannot be read is `Internal`.
//!
//! [`StateStore`] is the whole port, which adapters implement; use cases take the narrow ports that they need.

mod takeovers;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

pub use self::takeovers::{TakeoverWatch, Takeovers};
use crate::{
    error::Result,
    upload::{Claim, Owner, Part, Phase, Secret, Timestamp, Upload, UploadId, WriterTag},
};

/// How long a record is kept after its `expires_at`, so that the sweeper ends it and not the store: 7 days, in seconds.
pub const RECORD_GRACE_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The whole port. Writes are as durable as the store promises when they are answered.
#[async_trait]
pub trait StateStore: RecordStore + PartStore + ListingStore + ScheduleStore {
    /// The deployment's secret: the first one that was ever offered, for every caller.
    async fn secret(&self, offered: &Secret) -> Result<Secret>;

    /// Whether the store answers and can be written to.
    async fn check(&self) -> Result<()>;
}

/// Records: created, read, taken over, changed.
#[async_trait]
pub trait RecordStore: Send + Sync + Debug {
    /// Stores a new record and, if it has a fingerprint, its index entry, in one atomic step.
    ///
    /// A live upload (OPEN or COMMITTING) with the same fingerprint wins: it is returned and nothing is stored. If a record
    /// of the same id exists, an earlier answer was lost: [`Creation::Created`].
    async fn create(&self, upload: &Upload) -> Result<Creation>;

    /// Reads a record with all its parts and claims.
    async fn get(&self, id: &UploadId) -> Result<Option<Upload>>;

    /// Makes `writer` the one that may write, if the upload is OPEN and its present writer is one that `from` allows. From
    /// then on [`record_parts`](PartStore::record_parts) of every other writer is refused, and parts after a gap are
    /// dropped, in one step. Sets `updated_at` and `expires_at`, increments the version, notifies
    /// [watchers](Self::watch_takeovers), and returns the record as it is then. A record in another phase or of another
    /// writer is returned unchanged.
    async fn take_over(
        &self,
        id: &UploadId,
        writer: WriterTag,
        from: Predecessor,
        times: Times,
    ) -> Result<Option<Upload>>;

    /// Watches for takeovers of an upload, on any replica. A notice is a hint, and so is its absence: the writer in the
    /// record decides.
    fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch;

    /// Replaces everything in a record but its parts and claims, if its version still is `upload.version` and its writer
    /// `writer`; the stored version is then one more. The writer is compared because a version can come twice in a store
    /// that was rolled back. Leaving OPEN and COMMITTING removes the index entry in the same step. If the record already
    /// holds exactly this under the next version, an earlier answer was lost: [`Update::Updated`].
    async fn update(&self, upload: &Upload, writer: Option<WriterTag>) -> Result<Update>;

    /// [`update`](Self::update) that keeps the writer, but only if `updated_at` still is `seen`, too: neither a part nor a
    /// claim was recorded in between. Otherwise it is a conflict.
    async fn update_untouched(&self, upload: &Upload, seen: Timestamp) -> Result<Update>;
}

/// Parts: recorded by streams, claimed by clients that put them into the store themselves.
#[async_trait]
pub trait PartStore: Send + Sync + Debug {
    /// Records parts that the store has acknowledged, if the upload is OPEN, `writer` still is its writer and its version
    /// at least `version`, the latest that the writer knows: all of them or none, in one round trip. A part replaces the
    /// one of its number. The version stays as it is, so that parts recorded side by side do not conflict. Sets
    /// `updated_at` and `expires_at`. Without parts it is the heartbeat of an active writer.
    async fn record_parts(
        &self,
        id: &UploadId,
        writer: WriterTag,
        version: u64,
        parts: &[Part],
        times: Times,
    ) -> Result<PartRecord>;

    /// Records what a client claims of parts, if the upload belongs to `owner`, is OPEN, and its plan has a part of every
    /// number ([`Upload::part_count`]), whatever is claimed or recorded side by side; but no claim that a recorded part
    /// [contradicts](crate::upload::Parts::contradict). Then sets `updated_at` and `expires_at`; the version stays as it
    /// is. A claim without an MD5 keeps the MD5 that was claimed before.
    ///
    /// Up to 1,000 claims are one step in one round trip. More may take several steps: each checks owner, phase and plan
    /// again, and if a later one is refused or its answer lost, the earlier ones stay recorded.
    ///
    /// Returns a summary of the record as it is then: of its parts the last committed one and those of the claimed numbers
    /// as each step found them, of its claims none. `None` if `owner` has no such record.
    async fn claim(
        &self,
        id: &UploadId,
        owner: &Owner,
        claims: &[Claim],
        times: Times,
    ) -> Result<Option<Upload>>;
}

/// Listings of an owner's uploads.
#[async_trait]
pub trait ListingStore: Send + Sync + Debug {
    /// Lists an owner's uploads, newest first, with a [summary](crate::upload::Parts::summary) of their parts. A page may
    /// hold fewer than `limit` uploads, also none, and still have a next one.
    async fn list(&self, query: &ListQuery) -> Result<ListPage>;

    /// How many uploads an owner has: a hint, as listings are.
    async fn count(&self, owner: &Owner) -> Result<u64>;
}

/// What the sweeper works by: an index of due uploads, and leases.
#[async_trait]
pub trait ScheduleStore: Send + Sync + Debug {
    /// Finds uploads that were due ([`Upload::due_at`]) by `before`, the earliest first, after the place `after`. A page
    /// may hold fewer than `limit` uploads, also none, and still have a next one. The index is a hint: each entry is
    /// checked against its record here and repaired, and a lost one is added again when its upload is next opened.
    async fn due(&self, before: Timestamp, after: Option<&Due>, limit: usize) -> Result<DuePage>;

    /// Acquires the lease `name` for `holder`, for `lasts` from now by the store's clock; renews it if `holder` has it.
    /// Returns whether `holder` has it now.
    async fn lease(&self, name: &str, holder: &str, lasts: Duration) -> Result<bool>;

    /// Releases a lease, if `holder` has it.
    async fn release(&self, name: &str, holder: &str) -> Result<()>;
}

/// The times a write sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The new `updated_at`.
    pub now: Timestamp,
    /// The new `expires_at`.
    pub expires_at: Timestamp,
}

/// Which writer a new one may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Any writer, or none.
    Any,
    /// Only this writer; or, if `None`, only no writer.
    Only(Option<WriterTag>),
}

/// What became of a new record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It is stored.
    Created,
    /// A live upload of the same fingerprint exists: this one, with its parts.
    Exists(Box<Upload>),
}

/// What became of parts to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartRecord {
    /// They are recorded, now or earlier.
    Recorded {
        /// How many parts the contiguous prefix now holds.
        committed: u32,
    },
    /// Another stream has taken over the upload, and perhaps finished it.
    TakenOver,
    /// The upload left OPEN under this writer.
    NotOpen(Phase),
    /// There is no such record, or only an older version than the writer knows.
    Missing,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// It is stored, under this version.
    Updated(u64),
    /// The record had changed: the record as it is now, with its parts.
    Conflict(Box<Upload>),
    /// There is no such record.
    Missing,
}

/// Which uploads to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// The owner.
    pub owner: Owner,
    /// Only uploads in this phase.
    pub phase: Option<Phase>,
    /// The most uploads on the page.
    pub limit: usize,
    /// Only uploads after this place.
    pub after: Option<Cursor>,
}

/// A place in a listing: newest first, then by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The last upload's creation.
    pub created_at: Timestamp,
    /// Its id.
    pub id: UploadId,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The uploads.
    pub uploads: Vec<Upload>,
    /// Where the next page begins, unless this is the last.
    pub next: Option<Cursor>,
}

/// An upload that was due, and a place in the index of due uploads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When it became due, as the index has it.
    pub at: Timestamp,
    /// Its id.
    pub id: UploadId,
}

/// One page of due uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DuePage {
    /// The uploads.
    pub uploads: Vec<UploadId>,
    /// Where the next page begins, unless this is the last.
    pub next: Option<Due>,
}

/// When a store may remove a record that expires at `expires_at`.
pub fn removal_time(expires_at: Timestamp) -> Timestamp {
    expires_at.plus(Duration::from_secs(RECORD_GRACE_SECONDS))
}
