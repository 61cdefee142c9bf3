//! The domain: one upload's record and the rules of its life. Pure: no I/O, no wire or SDK types.
//!
//! An [`Upload`] is created OPEN, collects [`Part`]s, and ends COMPLETE or ABORTED. [`Upload::apply`] is the only way
//! from one [`Phase`] to another.

mod digest;
mod id;
pub mod object;
mod part;
mod plan;
pub mod policy;
mod stored;
mod token;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    digest::{CompositeMd5, DigestState, FileDigest, InvalidDigest, Md5},
    id::{Fingerprint, Identity, InvalidUploadId, Secret, UploadId},
    part::{Claim, Claims, Part, Parts, WriterTag},
    plan::{MIB, PART_SIZE, Plan, SINGLE_PUT_MAX, Span, StoreLimits, TooLarge},
    stored::{Capabilities, StoredObject, StoredPart},
    token::{Listed, Snapshot, Trail},
};

/// One upload: what is to be stored, where, how it is cut, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Its unguessable name.
    pub id: UploadId,
    /// Counts the writes of the record; every update but a part's receipt is compared and set on it.
    pub version: u64,
    /// Where it stands in its life.
    pub phase: Phase,
    /// What the sender said of the file.
    pub file: FileMetadata,
    /// Who may see and continue it.
    pub owner: Owner,
    /// The configured storage it goes to, for good.
    pub storage_id: String,
    /// The kind of that storage.
    pub store_kind: StoreKind,
    /// The object's key in the bucket or container: never shared, never reused.
    pub object_key: String,
    /// How the file is cut into parts: fixed at creation, so every replica cuts alike.
    pub plan: Plan,
    /// Where the same create finds it again, if it can.
    pub fingerprint: Option<Fingerprint>,
    /// The store's session (S3: its upload id), once one was begun. A finished upload without one was a single put.
    pub session: Option<String>,
    /// The stream that may write now.
    pub writer: Option<WriterTag>,
    /// Who commits, and until when nobody else does.
    pub lease: Option<Lease>,
    /// The parts the store has acknowledged.
    #[serde(skip)]
    pub parts: Parts,
    /// The parts that clients say they sent to the store themselves.
    #[serde(skip)]
    pub claims: Claims,
    /// Whether `file_id` only finds the upload again, and is compared with nothing: so it is where a client that puts
    /// parts itself created it. PlaceOS clients give the MD5 of the first part there.
    #[serde(default)]
    pub opaque_file_id: bool,
    /// What lies in the store, once COMPLETE.
    pub object: Option<Object>,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it is given up unless it changes before; see also [`Upload::given_up_at`]. Once ABORTED: when nothing that was
    /// signed for it can reach the store any longer.
    pub expires_at: Timestamp,
    /// When it is given up however much it changes, as soon as nobody is at work on it.
    #[serde(default = "Timestamp::never")]
    pub ends_at: Timestamp,
    /// Whether the store was cleared once more after everything that was signed for an ABORTED upload had ended.
    #[serde(default)]
    pub swept: bool,
}

/// An upload that changed within this time is being worked on: running streams show themselves more often.
pub const ACTIVE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Where an upload stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Takes parts.
    Open,
    /// All parts are there; the store is being asked to make the object of them.
    Committing,
    /// The object was verified in the store.
    Complete,
    /// Given up; nothing of it stays in the store.
    Aborted,
}

/// What the sender said of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMetadata {
    /// The name, without a path.
    pub file_name: String,
    /// The size in bytes, where it is known beforehand.
    pub file_size: Option<u64>,
    /// The media type the object gets.
    pub file_mime: String,
    /// The base64 MD5 of the whole file, which is checked, unless [`Upload::opaque_file_id`].
    pub file_id: Option<String>,
    /// Who may download it, besides its owner.
    pub permissions: Permissions,
    /// Whether any authenticated caller may download it.
    pub public: bool,
    /// Labels to find it by.
    pub tags: Vec<String>,
    /// Where the caller files it; only kept, never part of the object key.
    pub file_path: String,
    /// Keep no whole-file digest: cheaper, and no `file_id` can be checked.
    pub skip_file_digest: bool,
}

/// Who may download an upload, besides its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permissions {
    /// Any authenticated caller.
    #[default]
    None,
    /// Support staff and administrators.
    Support,
    /// Administrators.
    Admin,
}

/// The kind of store that a file goes to. PlaceOS clients know it by its name there, the `residence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// S3 or a store that speaks its protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
}

/// Whose upload it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The organisation; empty where there is only one.
    pub tenant: String,
    /// The caller within it; empty without authentication.
    pub subject: String,
}

/// The right to commit an upload, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The committer.
    pub holder: WriterTag,
    /// From then on somebody else may commit.
    pub until: Timestamp,
}

/// An object that lies verified in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// S3 bucket or Azure container.
    pub bucket: String,
    /// Its key there.
    pub key: String,
    /// The store's entity tag, without quotes.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its whole MD5, only where it was proven.
    pub md5: Option<Md5>,
}

/// Milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

/// Something that happens to an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The store began a session for its parts.
    SessionStarted {
        /// The store's name for it.
        session: String,
    },
    /// A client began another session in place of one that holds nothing, or the store forgot that one.
    SessionReplaced {
        /// The store's name for the new one, if there is one.
        session: Option<String>,
    },
    /// The stream that wrote has ended.
    WriterLeft,
    /// All parts are recorded, and one committer begins.
    CommitStarted {
        /// Its right to do so.
        lease: Lease,
        /// When it begins; another committer's lease must have ended by then.
        now: Timestamp,
        /// The size of the whole file in bytes, now that it is known.
        file_size: u64,
    },
    /// The committer gives up for now: from the end of this lease, the rest of its own, somebody else may go on.
    CommitSuspended {
        /// What is left of its right.
        lease: Lease,
    },
    /// The committer finds parts missing, before it asked the store for anything.
    CommitReopened,
    /// The object was verified in the store, whoever committed it there.
    Committed {
        /// What was found there.
        object: Object,
    },
    /// The store or the digest refused it for good.
    Refused,
    /// Its owner, or the sweeper, gave it up.
    Abandoned,
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The record changed and must be stored.
    Changed,
    /// It had happened before; nothing changed.
    Same,
}

/// An event that the upload's phase forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upload is {0}")]
pub struct Rejected(pub Phase);

// === impl StoreKind ===

impl StoreKind {
    /// All kinds.
    pub const ALL: &[Self] = &[Self::S3, Self::Azure];

    /// The name that PlaceOS clients know it by: their `residence`.
    pub fn residence(self) -> &'static str {
        match self {
            Self::S3 => "AmazonS3",
            Self::Azure => "AzureStorage",
        }
    }
}

// === impl Upload ===

impl Upload {
    /// Applies one event: legal → next phase, repeated → the same, illegal → rejected and unchanged.
    pub fn apply(&mut self, event: Event) -> Result<Applied, Rejected> {
        let next = match (self.phase, event) {
            (Phase::Open, Event::SessionStarted { session }) => match &self.session {
                Some(known) if *known == session => return Ok(Applied::Same),
                Some(_) => return Err(Rejected(self.phase)),
                None => {
                    self.session = Some(session);
                    Phase::Open
                }
            },
            (Phase::Open, Event::SessionReplaced { session }) => {
                if self.session == session {
                    return Ok(Applied::Same);
                }
                if !self.parts.is_empty() {
                    return Err(Rejected(self.phase));
                }
                self.session = session;
                Phase::Open
            }
            (Phase::Open, Event::WriterLeft) => match self.writer.take() {
                Some(_) => Phase::Open,
                None => return Ok(Applied::Same),
            },
            (
                Phase::Open | Phase::Committing,
                Event::CommitStarted {
                    lease,
                    now,
                    file_size,
                },
            ) => {
                match self.lease {
                    Some(held) if held == lease => return Ok(Applied::Same),
                    Some(held) if held.blocks(&lease, now) => return Err(Rejected(self.phase)),
                    Some(_) | None => {}
                }
                self.lease = Some(lease);
                self.file.file_size = Some(file_size);
                Phase::Committing
            }
            (Phase::Committing, Event::CommitSuspended { lease }) => {
                if !self.lease.is_some_and(|held| held.can_shorten_to(&lease)) {
                    return Ok(Applied::Same);
                }
                self.lease = Some(lease);
                Phase::Committing
            }
            (Phase::Committing, Event::CommitReopened) => {
                self.lease = None;
                Phase::Open
            }
            (Phase::Open, Event::CommitReopened) => return Ok(Applied::Same),
            (Phase::Open | Phase::Committing, Event::Committed { object }) => {
                self.lease = None;
                self.object = Some(object);
                Phase::Complete
            }
            // Who looks at the object need not know as much of it as who committed it.
            (Phase::Complete, Event::Committed { object }) if self.is_made(&object) => {
                return Ok(Applied::Same);
            }
            (Phase::Open | Phase::Committing, Event::Refused) | (Phase::Open, Event::Abandoned) => {
                self.lease = None;
                Phase::Aborted
            }
            (Phase::Aborted, Event::Refused | Event::Abandoned) => return Ok(Applied::Same),
            (
                Phase::Open | Phase::Committing | Phase::Complete | Phase::Aborted,
                Event::SessionStarted { .. }
                | Event::SessionReplaced { .. }
                | Event::WriterLeft
                | Event::CommitStarted { .. }
                | Event::CommitSuspended { .. }
                | Event::CommitReopened
                | Event::Committed { .. }
                | Event::Refused
                | Event::Abandoned,
            ) => return Err(Rejected(self.phase)),
        };
        self.phase = next;
        Ok(Applied::Changed)
    }

    fn is_made(&self, object: &Object) -> bool {
        let known = self.object.as_ref();
        known.is_some_and(|known| known.is_same(object))
    }

    /// The end, in bytes, of the contiguous prefix of committed parts.
    pub fn committed_size(&self) -> u64 {
        match self.phase {
            Phase::Complete => self.object.as_ref().map_or(0, |object| object.size),
            Phase::Open | Phase::Committing | Phase::Aborted => self.parts.committed_size(),
        }
    }

    /// The size of the whole file in bytes, once it is settled: declared, or implied by a last part that is shorter
    /// than its plan.
    pub fn settled_size(&self) -> Option<u64> {
        self.file.file_size.or_else(|| {
            let last = self.parts.last_committed()?;
            let planned = self.plan.span(last.number)?;
            (last.size < planned.size).then(|| last.end())
        })
    }

    /// Where part `number` lies in the file; the last part of a file of known size is as short as it must be.
    pub fn span(&self, number: u32) -> Option<Span> {
        let span = self.plan.span(number)?;
        match self.settled_size() {
            Some(size) if span.offset >= size && size > 0 => None,
            Some(size) => Some(Span {
                size: span.size.min(size - span.offset.min(size)),
                ..span
            }),
            None => Some(span),
        }
    }

    /// How many parts the file has, at least one; `None` where its size is not declared.
    pub fn part_count(&self) -> Option<u32> {
        let (size, part_size) = (self.file.file_size?, self.plan.part_size()?);
        u32::try_from(size.div_ceil(part_size).max(1)).ok()
    }

    /// How many parts its object has: as many as are planned or, if the size was not declared, as were recorded once the
    /// file is whole.
    pub fn object_part_count(&self) -> Option<u32> {
        let is_whole = self.file.file_size == Some(self.parts.committed_size());
        let recorded = is_whole.then_some(self.parts.committed());
        self.part_count().or(recorded)
    }

    /// Whether the whole file fits one put, as its only part, and no session was begun for it.
    pub fn fits_single_put(&self, size: u64) -> bool {
        let first_part = self.plan.span(1).map_or(0, |span| span.size);
        self.session.is_none() && size <= SINGLE_PUT_MAX.min(first_part)
    }

    /// The promised MD5 of the whole file, where the sender gave one that is meant to be checked.
    pub fn promised_md5(&self) -> Option<Md5> {
        let file_id = self.file.file_id.as_deref();
        file_id
            .filter(|_| !self.opaque_file_id)
            .and_then(|text| text.parse().ok())
    }

    /// Whether it still may become an object.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Committing)
    }

    /// When it is given up unless it changes before: after a time without a change, and at a certain age.
    pub fn given_up_at(&self) -> Timestamp {
        self.expires_at.min(self.ends_at)
    }

    /// When somebody has to look at it: when it is given up, when its committer should be done, or, once ABORTED, when
    /// the store has to be cleared for good. Never, once it is over.
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Open => Some(self.given_up_at()),
            Phase::Committing => Some(self.lease.map_or(Timestamp(0), |lease| lease.until)),
            Phase::Aborted => (!self.swept).then_some(self.expires_at),
            Phase::Complete => None,
        }
    }

    /// Whether it is OPEN and to be given up. Its age alone does not end it while somebody is [at work](ACTIVE_WINDOW) on it.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        let is_at_work = self.updated_at.plus(ACTIVE_WINDOW) > now;
        self.phase == Phase::Open
            && (self.expires_at <= now || (self.ends_at <= now && !is_at_work))
    }
}

// === impl Lease ===

impl Lease {
    /// Whether the holder of `other` must wait at that moment.
    fn blocks(&self, other: &Self, now: Timestamp) -> bool {
        self.holder != other.holder && self.until > now
    }

    /// Whether `other` is a shorter one of the same holder.
    fn can_shorten_to(&self, other: &Self) -> bool {
        self.holder == other.holder && self.until > other.until
    }
}

// === impl Object ===

impl Object {
    fn is_same(&self, other: &Self) -> bool {
        (&self.key, &self.etag, self.size) == (&other.key, &other.etag, other.size)
    }
}

// === impl Phase ===

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::Committing => "committing",
            Self::Complete => "complete",
            Self::Aborted => "aborted",
        })
    }
}

// === impl Timestamp ===

impl Timestamp {
    /// Later than everything.
    pub fn never() -> Self {
        Self(u64::MAX)
    }

    /// This moment, `duration` earlier, but not before the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// This moment, `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}
