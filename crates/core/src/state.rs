//! The port to the state store: where the records of all uploads live.
//!
//! Adapters store and compare; what may happen to a record is decided by [`crate::upload`]. Every call may be repeated
//! after a lost answer and then reports what it would have reported. An unreachable store is `Unavailable`
//! ([`Error::is_retryable`](crate::error::Error::is_retryable)); anything the store holds that cannot be read is `Internal`.

mod takeovers;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

pub use self::takeovers::{TakeoverWatch, Takeovers};
use crate::{
    error::Result,
    upload::{Claim, Owner, Part, Phase, Secret, Timestamp, Upload, UploadId, WriterTag},
};

/// How long a record outlives its `expires_at`, so that the sweeper ends it and not the store: 7 days, in seconds.
pub const RECORD_GRACE_SECONDS: u64 = 7 * 24 * 60 * 60;

/// A store of upload records. Writes are durable to the store's own promise when they are answered.
#[async_trait]
pub trait StateStore: Send + Sync + Debug {
    /// Stores a new record, and its fingerprint if it has one, at once and atomically.
    ///
    /// A live upload (OPEN or COMMITTING) of the same fingerprint wins: it is returned and nothing is stored. A record
    /// of the same id is the echo of a lost answer: [`Creation::Created`].
    async fn create(&self, upload: &Upload) -> Result<Creation>;

    /// Reads a record with all its parts and claims.
    async fn get(&self, id: &UploadId) -> Result<Option<Upload>>;

    /// Makes `writer` the one that may write, if the upload is OPEN and its present writer is one `from` names: from then
    /// on every other writer's [`record_parts`](Self::record_parts) is refused, and parts behind a gap are forgotten, in
    /// one step. Sets `updated_at` and `expires_at`, bumps the version, tells who [watches](Self::watch_takeovers), and
    /// returns the record as it now is. A record in another phase or of another writer is returned unchanged.
    async fn take_over(
        &self,
        id: &UploadId,
        writer: WriterTag,
        from: Predecessor,
        times: Times,
    ) -> Result<Option<Upload>>;

    /// Listens for takeovers of an upload, wherever they happen. What is heard is a hint, and so is silence: the record's
    /// writer is the truth.
    fn watch_takeovers(&self, id: &UploadId) -> TakeoverWatch;

    /// Records parts that the store has acknowledged, if the upload is OPEN, `writer` still its writer and
    /// its version at least `version`, the latest that the writer knows: all of them or
    /// none, in one round trip. A part takes the place of one of its number. Does not touch the version, so that parts
    /// recorded side by side do not fight over it; sets `updated_at` and `expires_at`. With no parts it is the sign of life
    /// of a writer that is still at it.
    async fn record_parts(
        &self,
        id: &UploadId,
        writer: WriterTag,
        version: u64,
        parts: &[Part],
        times: Times,
    ) -> Result<PartRecord>;

    /// Notes what a client says of parts, if the upload is `owner`'s and OPEN and its plan has a part of every number
    /// ([`Upload::part_count`]), whatever else is noted or recorded side by side; but none that a recorded part
    /// [contradicts](crate::upload::Parts::contradict). Then sets `updated_at` and `expires_at`; does not touch the version.
    /// A claim without an MD5 leaves the one that was noted before.
    ///
    /// Up to 1,000 claims are one step in one round trip. More may be noted in several steps: each checks owner, phase and
    /// plan anew, and where a later one is refused or its answer lost, the earlier ones stay noted.
    ///
    /// Returns the record as it now is, summed up: of its parts the last committed one and those of the claimed
    /// numbers as each step found them, of its claims none. `None` where there is no such record of `owner`'s.
    async fn claim(
        &self,
        id: &UploadId,
        owner: &Owner,
        claims: &[Claim],
        times: Times,
    ) -> Result<Option<Upload>>;

    /// Replaces everything of a record but its parts and claims, if its version still is `upload.version` and its writer
    /// `writer`; the stored version is then one more. A version alone may come twice, in a store that went back. Leaving OPEN and COMMITTING releases the fingerprint in the same step. A record that already
    /// holds exactly this under the next version is the echo of a lost answer: [`Update::Updated`].
    async fn update(&self, upload: &Upload, writer: Option<WriterTag>) -> Result<Update>;

    /// [`update`](Self::update) that leaves the writer, but only if `updated_at` still is `seen`, too: neither a part nor a claim came in between.
    /// Otherwise it is a conflict.
    async fn update_untouched(&self, upload: &Upload, seen: Timestamp) -> Result<Update>;

    /// Finds uploads that were due ([`Upload::due_at`]) by `before`, the earliest first, behind the place `after`. A
    /// page may hold fewer than `limit` uploads, also none, and still have a next one. Its index is a hint: each entry is
    /// checked against its record here and put right, and one that was lost comes back when its upload is next opened.
    async fn due(&self, before: Timestamp, after: Option<&Due>, limit: usize) -> Result<DuePage>;

    /// Makes `holder` the only one who has the lease `name`, for `lasts` from now by the store's clock: taken where nobody
    /// has it, prolonged where `holder` has it. Tells whether `holder` has it now.
    async fn lease(&self, name: &str, holder: &str, lasts: Duration) -> Result<bool>;

    /// Gives a lease back, if it is `holder`'s.
    async fn release(&self, name: &str, holder: &str) -> Result<()>;

    /// Lists an owner's uploads, newest first. Parts are summed up ([`Parts::summary`](crate::upload::Parts::summary)).
    /// A page may hold fewer than `limit` uploads, also none, and still have a next one.
    async fn list(&self, query: &ListQuery) -> Result<ListPage>;

    /// How many uploads an owner has: a hint, as listings are.
    async fn count(&self, owner: &Owner) -> Result<u64>;

    /// The deployment's secret: the first one ever offered is kept and returned to everybody.
    async fn secret(&self, offered: &Secret) -> Result<Secret>;

    /// Whether the store answers and can be written to.
    async fn check(&self) -> Result<()>;
}

/// The times a write sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The new `updated_at`.
    pub now: Timestamp,
    /// The new `expires_at`.
    pub expires_at: Timestamp,
}

/// Whose place a new writer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Any stream's.
    Any,
    /// Only this writer's, or only nobody's.
    Only(Option<WriterTag>),
}

/// What became of a new record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It is stored.
    Created,
    /// A live upload of the same fingerprint exists; this is it, with its parts.
    Exists(Box<Upload>),
}

/// What became of parts' receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartRecord {
    /// They are recorded, now or before.
    Recorded {
        /// How many parts the contiguous prefix now holds.
        committed: u32,
    },
    /// Another stream has taken the upload over, and perhaps finished it.
    TakenOver,
    /// The upload left OPEN under this writer.
    NotOpen(Phase),
    /// There is no such record, or one from before what the writer knows.
    Missing,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// It is stored, under this version.
    Updated(u64),
    /// The record had changed; this is it now, with its parts.
    Conflict(Box<Upload>),
    /// There is no such record.
    Missing,
}

/// Which uploads to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Whose.
    pub owner: Owner,
    /// In this phase only.
    pub phase: Option<Phase>,
    /// At most so many.
    pub limit: usize,
    /// Those behind this place.
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

/// An upload that was due, and a place in the index of those.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Since when, as the index knew it.
    pub at: Timestamp,
    /// Which.
    pub id: UploadId,
}

/// One page of what is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DuePage {
    /// The uploads.
    pub uploads: Vec<UploadId>,
    /// Where the next page begins, unless this is the last.
    pub next: Option<Due>,
}

/// When a store may forget a record that is given up at `expires_at`.
pub fn removal_time(expires_at: Timestamp) -> Timestamp {
    expires_at.plus(Duration::from_secs(RECORD_GRACE_SECONDS))
}
