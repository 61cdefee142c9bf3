//! Parts, who wrote them, and what clients claim of those they sent to the store themselves.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{DigestState, Md5};

/// The random tag of one opened stream, 31 bits, never zero. Compared for equality only: tags have no order, so a
/// state store that rolled back cannot hand one out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct WriterTag(u32);

/// One part that the store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its MD5, where the gateway or the store computed it. A part that a client put itself has none on Azure.
    pub md5: Option<Md5>,
    /// What a commit names it by: the ETag on S3 (no quotes), the block id on Azure.
    pub receipt: String,
    /// The whole-file digest up to the end of this part, where one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DigestState>,
}

/// What a client says of a part that it sends to the store itself. Never proof that the part exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The part's number, from 1.
    pub number: u32,
    /// Its MD5, where the client said one.
    pub md5: Option<Md5>,
}

/// All claims of one upload: the latest MD5 of each number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<u32, Option<Md5>>);

/// The parts of one upload. *Committed* parts are those of the contiguous prefix 1, 2, 3….
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    committed: u32,
    by_number: BTreeMap<u32, Part>,
}

// === impl WriterTag ===

impl WriterTag {
    /// A fresh tag.
    pub fn random() -> Self {
        Self(rand::random_range(1..=Self::MAX))
    }

    /// The largest tag: 31 bits, what an Azure block id has room for.
    const MAX: u32 = 0x7fff_ffff;

    /// The tag of that number, if it is one.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&bits).then_some(Self(bits))
    }

    /// The tag as a number of 31 bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for WriterTag {
    type Error = &'static str;

    fn try_from(bits: u32) -> Result<Self, Self::Error> {
        Self::from_bits(bits).ok_or("not a writer's tag of 31 bits")
    }
}

impl fmt::Display for WriterTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

// === impl Part ===

impl Part {
    /// Where it ends in the file, in bytes.
    pub fn end(&self) -> u64 {
        // What a state store holds may be anything, and must not end the process.
        self.offset.saturating_add(self.size)
    }
}

// === impl Parts ===

impl Parts {
    /// What a summary knows: how many parts are committed, and some of them.
    pub fn summary(committed: u32, known: impl IntoIterator<Item = Part>) -> Self {
        Self {
            committed,
            by_number: known.into_iter().map(|part| (part.number, part)).collect(),
        }
    }

    /// Adds a part, in place of one of its number.
    pub fn insert(&mut self, part: Part) {
        self.by_number.insert(part.number, part);
        while self.by_number.contains_key(&(self.committed + 1)) {
            self.committed += 1;
        }
    }

    /// Forgets the parts behind a gap.
    pub fn drop_beyond_committed(&mut self) {
        self.by_number.split_off(&(self.committed + 1));
    }

    /// The part of that number, committed or behind a gap.
    pub fn get(&self, number: u32) -> Option<&Part> {
        self.by_number.get(&number)
    }

    /// How many parts are committed; also the number of the last of them.
    pub fn committed(&self) -> u32 {
        self.committed
    }

    /// The last committed part.
    pub fn last_committed(&self) -> Option<&Part> {
        self.get(self.committed)
    }

    /// The end of the committed prefix in bytes.
    pub fn committed_size(&self) -> u64 {
        self.last_committed().map_or(0, Part::end)
    }

    /// All parts by number, also those behind a gap.
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.by_number.values()
    }

    /// The committed parts by number.
    pub fn iter_committed(&self) -> impl Iterator<Item = &Part> {
        self.by_number
            .range(..=self.committed)
            .map(|(_, part)| part)
    }

    /// Whether the part that a client speaks of is recorded with another MD5: then what it says counts for nothing.
    pub fn contradict(&self, claim: &Claim) -> bool {
        let recorded = self.get(claim.number).and_then(|part| part.md5);
        matches!((recorded, claim.md5), (Some(recorded), Some(claimed)) if recorded != claimed)
    }

    /// How many parts are known, also those behind a gap.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether no part is known.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}

// === impl Claims ===

impl Claims {
    /// Adds a claim. One without an MD5 leaves the one that was claimed before.
    pub fn insert(&mut self, claim: Claim) {
        let md5 = self.0.entry(claim.number).or_default();
        *md5 = claim.md5.or(*md5);
    }

    /// The MD5 that is claimed of a part.
    pub fn md5(&self, number: u32) -> Option<Md5> {
        self.0.get(&number).copied().flatten()
    }

    /// Whether a client said that it sends the part.
    pub fn contains(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    /// All claims by number.
    pub fn iter(&self) -> impl Iterator<Item = Claim> {
        self.0.iter().map(|(&number, &md5)| Claim { number, md5 })
    }

    /// Whether no client ever said that it sends parts itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Claim> for Claims {
    fn from_iter<I: IntoIterator<Item = Claim>>(claims: I) -> Self {
        let mut all = Self::default();
        for claim in claims {
            all.insert(claim);
        }
        all
    }
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.insert(part);
        }
        all
    }
}
