//! The indexes of listings, and their entries: what a search needs to know of an upload, so that it reads records for its
//! answer only.

use std::{borrow::Cow, iter::once};

use icu_normalizer::ComposingNormalizerBorrowed;

use super::{Cursor, Listing};
use crate::upload::{Owner, Phase, Timestamp, Upload, UploadId};

/// What separates labels. No name, tag, storage id or media type has it.
const SEPARATOR: char = '\0';

/// What an index has of a listing, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    /// All uploads, newest first.
    All,
    /// Those with this tag, in Unicode's [normal form C](nfc), newest first.
    Tag(String),
    /// Those in this storage, newest first.
    Storage(String),
    /// Those in this phase, newest first.
    Phase(Phase),
    /// Those in this storage and this phase, newest first.
    StoragePhase(String, Phase),
    /// Those whose [folded] name begins with this text, by folded name, and then newest first.
    Name(String),
}

/// An index of a listing, from and until a time of creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The listing.
    pub listing: Listing,
    /// The index.
    pub index: Index,
    /// When the uploads were created. Not for [`Index::Name`], which has another order.
    pub created: Created,
}

/// A range of times of creation. By default all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Created {
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub before: Option<Timestamp>,
}

/// What an index holds of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When the upload was created.
    pub created_at: Timestamp,
    /// Its id, see [`UploadId::to_bytes`].
    pub id: [u8; UploadId::BYTES],
    /// Its phase, as of the last update.
    pub phase: Phase,
    /// Storage, media type, folded name, and tags, each after a [`SEPARATOR`] but the first.
    labels: String,
}

/// The text in Unicode's normal form C. Some systems write an accented letter as two characters, others as one.
pub fn nfc(text: &str) -> Cow<'_, str> {
    ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

/// The text without differences of case and of normal form.
pub fn folded(text: &str) -> String {
    nfc(&text.to_lowercase()).into_owned()
}

/// The listings that have the uploads of an owner.
pub fn listings(owner: &Owner) -> impl Iterator<Item = Listing> + use<> {
    let tenant = Some(&owner.tenant).filter(|tenant| !tenant.is_empty());
    let tenant = tenant.map(|tenant| Listing::Tenant(tenant.clone()));
    once(Listing::Owner(owner.clone())).chain(tenant)
}

// === impl Index ===

impl Index {
    /// The phases of uploads in indexes, in their order: an upload that changes while indexes of several phases are read in this
    /// order is in the later one.
    pub const PHASES: [Phase; 4] = [
        Phase::Open,
        Phase::Committing,
        Phase::Aborted,
        Phase::Complete,
    ];

    /// Whether it is ordered by name.
    pub fn is_by_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }
}

// === impl Created ===

impl Created {
    /// Whether the range has the time.
    pub fn has(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.before.is_none_or(|end| time < end)
    }
}

// === impl Entry ===

impl Entry {
    /// The entry of an upload.
    pub fn of(upload: &Upload) -> Self {
        let file = &upload.file;
        let tags = file.tags.iter().map(|tag| nfc(tag));
        let labels = [
            Cow::from(&upload.storage_id),
            Cow::from(&file.file_mime),
            folded(&file.file_name).into(),
        ];
        let labels: Vec<_> = labels.into_iter().chain(tags).collect();
        Self {
            created_at: upload.created_at,
            id: upload.id.to_bytes(),
            phase: upload.phase,
            labels: labels.join("\0"),
        }
    }

    /// The entry with [`labels`](Self::labels).
    pub fn with(
        created_at: Timestamp,
        id: [u8; UploadId::BYTES],
        phase: Phase,
        labels: String,
    ) -> Self {
        Self {
            created_at,
            id,
            phase,
            labels,
        }
    }

    /// What the entry has beside position and phase: a text for stores. It begins with [`without_tags`](Self::without_tags).
    pub fn labels(&self) -> &str {
        &self.labels
    }

    /// The labels without the tags, which only searches in [`Index::Tag`] need.
    pub fn without_tags(&self) -> &str {
        let end = self.labels.match_indices(SEPARATOR).nth(2);
        end.map_or(&self.labels, |(end, _)| &self.labels[..end])
    }

    /// The labels without name and tags; the name is added at their end, after a NUL, to get
    /// [`without_tags`](Self::without_tags).
    pub fn without_name(&self) -> &str {
        let end = self.labels.match_indices(SEPARATOR).nth(1);
        end.map_or(&self.labels, |(end, _)| &self.labels[..end])
    }

    /// The id of the storage.
    pub fn storage_id(&self) -> &str {
        self.label(0)
    }

    /// The media type.
    pub fn file_mime(&self) -> &str {
        self.label(1)
    }

    /// The [folded] name.
    pub fn name(&self) -> &str {
        self.label(2)
    }

    /// The tags, in [normal form C](nfc). None in an entry of [`Index::Storage`], [`Index::StoragePhase`] and [`Index::Name`].
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.labels.split(SEPARATOR).skip(3)
    }

    /// The position in an index in this order.
    pub fn cursor(&self, is_by_name: bool) -> Cursor {
        Cursor {
            created_at: self.created_at,
            id: UploadId::from_bytes(self.id),
            name: is_by_name.then(|| self.name().to_owned()),
        }
    }

    /// The smallest indexes that have the entry; the others are made of these. The text of [`Index::Name`] is the whole name.
    pub fn indexes(&self) -> impl Iterator<Item = Index> {
        let tags = self.tags().map(|tag| Index::Tag(tag.to_owned()));
        self.in_phase(self.phase)
            .into_iter()
            .chain(tags)
            .chain(once(Index::Name(self.name().to_owned())))
    }

    /// The smallest indexes that must not have the entry: those of other phases.
    pub fn other_indexes(&self) -> impl Iterator<Item = Index> {
        let phases = Index::PHASES.into_iter();
        let others = phases.filter(|phase| *phase != self.phase);
        others.flat_map(|phase| self.in_phase(phase))
    }

    /// Those of uploads in this phase.
    fn in_phase(&self, phase: Phase) -> [Index; 2] {
        let storage_id = self.storage_id().to_owned();
        [Index::Phase(phase), Index::StoragePhase(storage_id, phase)]
    }

    fn label(&self, number: usize) -> &str {
        self.labels.split(SEPARATOR).nth(number).unwrap_or_default()
    }
}
