//! The domain: the record of one upload and the rules for its phases. Pure: no I/O, no wire types, no SDK types.
//!
//! An [`Upload`] is created OPEN, receives [`Part`]s, and ends COMPLETE or ABORTED. [`Upload::apply`] is the only way
//! from one [`Phase`] to another.

mod begun;
mod checksum;
mod choice;
mod crc64;
mod digest;
mod event;
mod evidence;
mod id;
pub mod keys;
pub mod object;
pub mod object_record;
mod origin;
mod part;
pub mod placement;
mod plan;
pub mod policy;
mod present;
mod running_md5;
mod stored;
mod timestamp;
mod token;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    checksum::{Checksum, Integrity, listed_crc64s},
    choice::DigestChoice,
    crc64::{Crc64Nvme, InvalidCrc64},
    digest::{CompositeMd5, DigestState, Digests, FileDigest, InvalidDigest, Md5},
    event::{AbortReason, Applied, Event, Rejected},
    evidence::{Denial, Denied, Evidence},
    id::{Fingerprint, Identity, InvalidUploadId, Secret, UploadId},
    origin::Origin,
    part::{Claim, Claims, Part, Parts, WriterTag},
    placement::{Encryption, Features, Placement},
    plan::{
        MAX_PART_NUMBER, MIB, PART_SIZE, Plan, SINGLE_PUT_MAX, Shown, Span, StoreLimits, TooLarge,
    },
    present::Present,
    running_md5::RunningMd5,
    stored::{Capabilities, Object, StoredObject, StoredPart, metadata_keys},
    timestamp::Timestamp,
    token::{Listed, Snapshot, Trail},
};
use crate::escape::escaped;

/// The record of one upload: the file, its destination, its split into parts, and its progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The id, which cannot be guessed.
    pub id: UploadId,
    /// Counts the updates of the record. Recording a part does not change it; every other update is a compare-and-set
    /// on it.
    pub version: u64,
    /// The phase.
    pub phase: Phase,
    /// What the sender declared about the file.
    pub file: FileMetadata,
    /// The owner, who may see and resume the upload.
    pub owner: Owner,
    /// The configured storage that the file goes to. Never changes.
    pub storage_id: String,
    /// The kind of that storage.
    pub store_kind: StoreKind,
    /// The object's key in the bucket or container. Never shared and never reused.
    pub object_key: String,
    /// How the file is split into parts. Fixed at creation, so that every replica splits it the same way, unless
    /// [`Upload::is_cut_by_client`] is set.
    pub plan: Plan,
    /// Whether clients that send the parts themselves choose the part size: the plan is the one that the parts in the
    /// store show, and `plan` is only the default. False as soon as a stream continues the upload.
    pub is_cut_by_client: bool,
    /// Counts the changes of the way in which clients cut the file. The names of their parts contain it (Azure), so that
    /// a part of an earlier cut is never taken for one of the present cut.
    pub cut: u8,
    /// The number of parts that the last client which continued was shown, if clients choose the part size. If it added only
    /// one part, that part may be the last one of another cut: see [`Present::take_unproven`].
    pub continued_with: u32,
    /// The part that may be the last one of another cut. It does not count until a request for it is signed again.
    pub unproven: Option<u32>,
    /// The key under which an identical create finds this upload, if it has a size and a `file_id`.
    pub fingerprint: Option<Fingerprint>,
    /// The id of the store's session (S3: the multipart upload), once one exists. The store ends it when the upload becomes
    /// COMPLETE.
    pub session: Option<String>,
    /// Which digest the parts have that the gateway puts into the session. It is fixed when the session begins.
    #[serde(default, skip_serializing_if = "Integrity::is_md5")]
    pub integrity: Integrity,
    /// The tag of the stream that may write.
    pub writer: Option<WriterTag>,
    /// How often it was begun: once when it was created, and once by each stream that took it over.
    pub attempts: u32,
    /// The commit lease: which committer has it, and until when.
    pub lease: Option<Lease>,
    /// The parts that the store has acknowledged.
    #[serde(skip)]
    pub parts: Parts,
    /// What clients claim about parts that they sent to the store themselves.
    #[serde(skip)]
    pub claims: Claims,
    /// Whether `file_id` only serves to find the upload again and is compared with nothing. True if a client that sends
    /// parts itself created the upload: PlaceOS clients set the MD5 of the first part.
    #[serde(default)]
    pub opaque_file_id: bool,
    /// The object in the store, once COMPLETE.
    pub object: Option<Object>,
    /// When the record was created.
    pub created_at: Timestamp,
    /// When the record was last changed.
    pub updated_at: Timestamp,
    /// When the upload expires unless it changes before; see also [`Upload::expiry`]. In an ABORTED or DELETING upload: when
    /// no signed request for it can reach the store any more. Means nothing in a COMPLETE upload.
    pub expires_at: Timestamp,
    /// When the upload expires even if it changes, as soon as it is not active any more.
    #[serde(default = "Timestamp::never")]
    pub ends_at: Timestamp,
    /// What is known of the store beside the recorded parts.
    #[serde(default)]
    pub evidence: Evidence,
    /// Whether an identical create has made another upload, because the store denied the session of this one. The other
    /// one holds the index entry.
    #[serde(default)]
    pub is_superseded: bool,
    /// Why the upload is ABORTED.
    #[serde(default)]
    pub abort_reason: Option<AbortReason>,
    /// What the sweeper still has to do for an ABORTED or DELETING upload.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// Until when the record of an ended upload is kept. `None`: as long as its file, if it is COMPLETE; otherwise the upload is
    /// live, or an earlier release ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Timestamp>,
    /// When the file of a COMPLETE upload is deleted. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_expires_at: Option<Timestamp>,
    /// Whether the record has changed, while the upload was live, in what the entry of its object has: the object may have been put
    /// before that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_amended: bool,
    /// When the gateway first found that something had replaced the object of a COMPLETE upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_changed_at: Option<Timestamp>,
    /// The upload whose file this one copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<UploadId>,
    /// The copy to which the file of a COMPLETE upload moves, or to which that of a DELETING one has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_to: Option<UploadId>,
    /// The call that created the upload, if it was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What the sweeper still has to do for an ABORTED or DELETING upload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    /// End the session and delete the object, now and once more at `expires_at`.
    Now,
    /// Do so at `expires_at`, when no signed request and no late commit can reach the store any more.
    #[default]
    AtExpiry,
    /// Nothing.
    Done,
}

/// The largest number of a [cut](Upload::cut) whose parts can be named: one decimal digit of a block id.
pub const MAX_CUT: u8 = 9;

/// An upload that changed within this time is active: the heartbeats of a running stream are more frequent.
pub const ACTIVE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// The phase of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Accepts parts.
    Open,
    /// All parts are recorded, and a committer is making the object.
    Committing,
    /// The object exists and was verified.
    Complete,
    /// Ended without an object. The store keeps nothing of it, and the record no parts and no claims.
    Aborted,
    /// Was COMPLETE, and its file is deleted. Callers do not see it any more. The record stays until the store has nothing
    /// of the file, and some time longer, so that a repeated delete succeeds.
    Deleting,
}

/// What the sender declares about the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMetadata {
    /// The name, without a path.
    pub file_name: String,
    /// The size in bytes, if it is known at creation.
    pub file_size: Option<u64>,
    /// The media type of the object.
    pub file_mime: String,
    /// The base64 MD5 of the whole file. It is checked, unless [`Upload::opaque_file_id`] is set.
    pub file_id: Option<String>,
    /// Who may download it, besides its owner.
    pub permissions: Permissions,
    /// Whether any authenticated caller may download it.
    pub public: bool,
    /// Labels, by which uploads can be searched.
    pub tags: Vec<String>,
    /// A path for the caller's own use. Stored in the record only, not part of the object key.
    pub file_path: String,
    /// Which digest of the whole file is computed. `file_id` can be checked only with its MD5.
    #[serde(flatten)]
    pub file_digest: DigestChoice,
    /// After how many seconds from completion the file is deleted. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<u64>,
    /// How the object is stored. In a record: what the caller asked for, and otherwise the defaults of the storage at that
    /// time.
    #[serde(default, skip_serializing_if = "Placement::is_default")]
    pub placement: Box<Placement>,
    /// What the caller's own cache says about the file. Only stored, for PlaceOS clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<Box<Cached>>,
}

/// What a caller's own cache says about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// The entity tag.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When it was modified, as the caller writes it.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
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

/// The kind of store that a file goes to. PlaceOS clients know it as the `residence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// S3, or a store with the S3 protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
}

/// The owner of an upload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The organisation. Empty if there is only one.
    pub tenant: String,
    /// The caller within the organisation. Empty without authentication.
    pub subject: String,
}

impl fmt::Display for Owner {
    /// The tenant and the subject, as far as they are known, separated by `/`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = format!("{}/{}", self.tenant, self.subject);
        formatter.write_str(&escaped(both.trim_matches('/')))
    }
}

/// The commit lease: the right to commit an upload for a limited time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The committer.
    pub holder: WriterTag,
    /// The end of the lease. Another committer may commit from then on.
    pub until: Timestamp,
}

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
    /// The end of the contiguous prefix of committed parts, in bytes.
    pub fn committed_size(&self) -> u64 {
        match self.phase {
            Phase::Complete | Phase::Deleting => {
                self.object.as_ref().map_or(0, |object| object.size)
            }
            Phase::Open | Phase::Committing | Phase::Aborted => self.parts.committed_size(),
        }
    }

    /// The size of the whole file in bytes, if it is known: declared, or derived from a last part that is shorter than
    /// planned.
    pub fn settled_size(&self) -> Option<u64> {
        self.file.file_size.or_else(|| {
            let last = self.parts.last_committed()?;
            let planned = self.plan.span(last.number)?;
            (last.size < planned.size).then(|| last.end())
        })
    }

    /// The position of part `number` in the file. The last part of a file of known size can be shorter than the others.
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

    /// The number of parts of the file, at least one. `None` if the size is not declared.
    pub fn part_count(&self) -> Option<u32> {
        self.plan.part_count(self.file.file_size?)
    }

    /// The largest number that a part can have: as planned, or as many parts as the store allows if clients choose their
    /// size. Zero if the size of the file is not declared.
    pub fn last_part(&self) -> u32 {
        if self.is_cut_by_client {
            return self.plan.max_parts();
        }
        self.part_count().unwrap_or(0)
    }

    /// The upload with this plan.
    #[must_use]
    pub fn planned(&self, plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            ..self.clone()
        }
    }

    /// The number of parts of the object: as planned, or as recorded if the size was not declared and the file is
    /// whole.
    pub fn object_part_count(&self) -> Option<u32> {
        let is_whole = self.file.file_size == Some(self.parts.committed_size());
        let recorded = is_whole.then_some(self.parts.committed());
        self.part_count().or(recorded)
    }

    /// Whether the whole file can be put as one object: it is small, and no session was created for it.
    pub fn fits_single_put(&self, size: u64) -> bool {
        let first_part = self.plan.span(1).map_or(0, |span| span.size);
        self.session.is_none() && size <= SINGLE_PUT_MAX.min(first_part)
    }

    /// The MD5 of the whole file that the sender promised, if it is to be checked.
    pub fn promised_md5(&self) -> Option<Md5> {
        let file_id = self.file.file_id.as_deref();
        file_id
            .filter(|_| !self.opaque_file_id)
            .and_then(|text| text.parse().ok())
    }

    /// Whether the upload can still become an object.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Committing)
    }

    /// Whether an object may exist: a commit was sent or signed, or, without a session, a put of the whole object.
    pub fn may_have_object(&self) -> bool {
        self.evidence.is_commit_sent || self.session.is_none()
    }

    /// When the upload expires unless it changes before: after a time without a change, and at its maximum age.
    pub fn expiry(&self) -> Timestamp {
        self.expires_at.min(self.ends_at)
    }

    /// When its file is deleted if the upload became COMPLETE at `completed_at`. `None`: never.
    pub fn file_expires(&self, completed_at: Timestamp) -> Option<Timestamp> {
        let kept = self.file.expire_after.map(Duration::from_secs);
        kept.map(|kept| completed_at.plus(kept))
    }

    /// When the upload expires, or the file of a COMPLETE one, if it does.
    pub fn expires(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Open | Phase::Committing => Some(self.expiry()),
            Phase::Complete => self.file_expires_at,
            Phase::Aborted | Phase::Deleting => None,
        }
    }

    /// Whether the create index leads to this upload, if it has a fingerprint.
    pub fn is_indexed(&self) -> bool {
        self.is_live() && !self.is_superseded
    }

    /// When the sweeper must handle the upload: when it or its file expires, when its commit lease ends, when the second observation
    /// of what the store denied counts, or when an ABORTED or DELETING upload must be removed from the store. `None` if there
    /// is nothing left to do.
    pub fn due_at(&self) -> Option<Timestamp> {
        let settles_at = self.evidence.denial.map(|denial| denial.settles_at);
        match self.phase {
            Phase::Open => settles_at.into_iter().chain([self.expiry()]).min(),
            Phase::Committing => {
                let lease = self.lease.map_or(Timestamp(0), |lease| lease.until);
                settles_at.into_iter().chain([lease]).max()
            }
            Phase::Aborted | Phase::Deleting => match self.cleanup {
                Cleanup::Now => Some(Timestamp(0)),
                Cleanup::AtExpiry => Some(self.expires_at),
                Cleanup::Done => None,
            },
            Phase::Complete => self.file_expires_at,
        }
    }

    /// Whether the upload is OPEN and has expired. Its age alone does not expire it while it is
    /// [active](ACTIVE_WINDOW).
    pub fn has_expired(&self, now: Timestamp) -> bool {
        let is_active = self.updated_at.plus(ACTIVE_WINDOW) > now;
        self.phase == Phase::Open && (self.expires_at <= now || (self.ends_at <= now && !is_active))
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
            Self::Deleting => "deleting",
        })
    }
}

// === impl Lease ===

impl Lease {
    /// Whether this lease prevents the holder of `other` from committing at the time `now`.
    fn blocks(&self, other: &Self, now: Timestamp) -> bool {
        self.holder != other.holder && self.until > now
    }

    /// Whether `other` is a shorter lease of the same holder.
    fn can_shorten_to(&self, other: &Self) -> bool {
        self.holder == other.holder && self.until > other.until
    }
}
