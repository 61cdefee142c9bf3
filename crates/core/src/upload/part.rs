//! Parts, the tags of their writers, and the claims of clients about parts that they sent to the store themselves.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Checksum, Crc64Nvme, DigestState, Md5};

/// The random tag of one opened stream: 31 bits, never zero. Tags are only compared for equality. They have no order,
/// so a state store that was rolled back cannot issue a tag twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct WriterTag(u32);

/// One part that the store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The number, from 1.
    pub number: u32,
    /// The position of its first byte in the file, in bytes.
    pub offset: u64,
    /// The size in bytes.
    pub size: u64,
    /// Its digest, if the gateway or the store computed it: the one that the store compared. `None` on Azure for a part that a
    /// client put itself.
    pub checksum: Option<Checksum>,
    /// The name of the part in a commit: the ETag on S3 (without quotes), the block id on Azure.
    pub receipt: String,
    /// The digest of the whole file up to the end of this part, if the upload has one and a resume can need it (see
    /// [`Parts::insert`]).
    pub digest: Option<DigestState>,
}

/// What a client claims about a part that it sends to the store itself. It does not prove that the part exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The part's number, from 1.
    pub number: u32,
    /// The MD5 of the part, if the client declared it.
    pub md5: Option<Md5>,
    /// The cut for which the gateway signed a request with this MD5 (see [`Upload::cut`](super::Upload::cut)). `None` if
    /// the client only reported the part. The state store sets the number when it records the claim.
    pub signed_for: Option<u8>,
}

/// All claims of one upload, by part number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<u32, Claim>);

/// The parts of one upload. *Committed* parts are those of the contiguous prefix 1, 2, 3, and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    committed: u32,
    rewritten: u64,
    by_number: BTreeMap<u32, Part>,
}

// === impl WriterTag ===

impl WriterTag {
    /// A new random tag.
    pub fn random() -> Self {
        Self(rand::random_range(1..=Self::MAX))
    }

    /// The largest tag. An Azure block id has room for 31 bits.
    const MAX: u32 = 0x7fff_ffff;

    /// The tag with this number, if it is a valid tag.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&bits).then_some(Self(bits))
    }

    /// The tag as a 31-bit number.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for WriterTag {
    type Error = &'static str;

    fn try_from(bits: u32) -> Result<Self, Self::Error> {
        Self::from_bits(bits).ok_or("a writer tag must be a number from 1 to 2147483647")
    }
}

impl fmt::Display for WriterTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

// === impl Part ===

impl Part {
    /// The end of the part in the file, in bytes.
    pub fn end(&self) -> u64 {
        // A state store can contain anything, so an overflow must not panic.
        self.offset.saturating_add(self.size)
    }

    /// The MD5, if that is its checksum.
    pub fn md5(&self) -> Option<Md5> {
        self.checksum.and_then(Checksum::md5)
    }

    /// The MD5, as far as it is known: the ETag of a part with a CRC-64 is its MD5, unless a key of KMS encrypts it. Only that it equals
    /// another one proves something.
    pub fn probable_md5(&self) -> Option<Md5> {
        match self.checksum? {
            Checksum::Md5(md5) => Some(md5),
            Checksum::Crc64Nvme(_) => {
                let md5: Option<Md5> = self.receipt.parse().ok();
                md5.filter(|md5| md5.to_hex() == self.receipt)
            }
        }
    }

    /// The CRC-64/NVME, if that is its checksum.
    pub fn crc64nvme(&self) -> Option<Crc64Nvme> {
        self.checksum.and_then(Checksum::crc64nvme)
    }

    /// Whether the store has the same part, whatever is known about the whole file.
    fn is_same(&self, other: &Self) -> bool {
        (self.size, self.checksum, &self.receipt) == (other.size, other.checksum, &other.receipt)
    }
}

// === impl Parts ===

impl Parts {
    /// The parts in a summary of a record: the number of committed parts, and some of the parts.
    pub fn summary(committed: u32, known: impl IntoIterator<Item = Part>) -> Self {
        Self {
            committed,
            rewritten: 0,
            by_number: known.into_iter().map(|part| (part.number, part)).collect(),
        }
    }

    /// The same parts, with the stored [`rewritten`](Self::rewritten).
    #[must_use]
    pub fn with_rewritten(self, rewritten: u64) -> Self {
        Self { rewritten, ..self }
    }

    /// Adds a part. It replaces a part with the same number.
    ///
    /// Digest states that no resume can need are dropped: a stream continues from the last committed part or, after the
    /// parts that are missing now have arrived, from a later one. Bytes that are sent again are compared with the checksums
    /// of their parts. A part without one is compared by the digests of the whole file at its start and at its end,
    /// so these stay.
    pub fn insert(&mut self, part: Part) {
        self.extend([part]);
    }

    fn put(&mut self, part: Part) {
        let number = part.number;
        let replaced = self.by_number.get(&number);
        if number <= self.committed && replaced.is_some_and(|known| !known.is_same(&part)) {
            self.rewritten += 1;
        }
        self.by_number.insert(number, part);
        while self.by_number.contains_key(&(self.committed + 1)) {
            self.committed += 1;
        }
    }

    fn drop_digest_of(&mut self, number: u32) {
        let has_checksum = |number| {
            let part = self.get(number);
            part.is_some_and(|part| part.checksum.is_some())
        };
        if number < self.committed
            && has_checksum(number)
            && has_checksum(number + 1)
            && let Some(part) = self.by_number.get_mut(&number)
        {
            part.digest = None;
        }
    }

    /// Removes the parts after a gap.
    pub fn drop_beyond_committed(&mut self) {
        self.by_number.split_off(&(self.committed + 1));
    }

    /// The part with this number, committed or after a gap.
    pub fn get(&self, number: u32) -> Option<&Part> {
        self.by_number.get(&number)
    }

    /// The number of committed parts, which is also the number of the last one.
    pub fn committed(&self) -> u32 {
        self.committed
    }

    /// How often a committed part was replaced by another one. Whatever was derived from the committed parts is valid as
    /// long as the writer and this number stay the same.
    pub fn rewritten(&self) -> u64 {
        self.rewritten
    }

    /// The last committed part.
    pub fn last_committed(&self) -> Option<&Part> {
        self.get(self.committed)
    }

    /// The end of the committed prefix, in bytes.
    pub fn committed_size(&self) -> u64 {
        self.last_committed().map_or(0, Part::end)
    }

    /// All parts by number, including those after a gap.
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.by_number.values()
    }

    /// The committed parts by number.
    pub fn iter_committed(&self) -> impl Iterator<Item = &Part> {
        self.by_number
            .range(..=self.committed)
            .map(|(_, part)| part)
    }

    /// Whether the part is recorded with another MD5 than the claimed one, or with a CRC-64 and an MD5 that is not known: the client may
    /// have other bytes. Such a claim is ignored.
    pub fn contradict(&self, claim: &Claim) -> bool {
        let recorded = self
            .get(claim.number)
            .filter(|part| part.checksum.is_some());
        recorded
            .zip(claim.md5)
            .is_some_and(|(part, claimed)| part.probable_md5() != Some(claimed))
    }

    /// The CRC-64/NVME of a file of `size` bytes, if these are the committed parts, and theirs or that of the file is known.
    pub fn crc64nvme(&self, size: u64) -> Option<Crc64Nvme> {
        let last = self.last_committed().filter(|last| last.end() == size)?;
        let running = last.digest.as_ref().and_then(DigestState::crc64nvme);
        running.or_else(|| {
            self.iter_committed()
                .try_fold(Crc64Nvme::default(), |before, part| {
                    Some(before.combine(part.crc64nvme()?, part.size))
                })
        })
    }

    /// The number of known parts, including those after a gap.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether no part is known.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}

// === impl Claim ===

impl Claim {
    /// Whether the claim replaces `known`, an earlier one of the same part: a signed one does, and one without an MD5 does
    /// not. One that is only reported replaces another MD5, but not a signed one if clients choose the part size.
    pub fn replaces(&self, known: &Self, is_cut_by_client: bool) -> bool {
        match (self.signed_for, self.md5) {
            (Some(_), _) => true,
            (None, Some(md5)) => match known.signed_for {
                Some(_) => !is_cut_by_client && known.md5 != Some(md5),
                None => true,
            },
            (None, None) => false,
        }
    }
}

// === impl Claims ===

impl Claims {
    /// Adds a claim of an upload with a fixed plan, if it [replaces](Claim::replaces) what was claimed before.
    pub fn insert(&mut self, claim: Claim) {
        let known = self.0.get(&claim.number);
        if known.is_none_or(|known| claim.replaces(known, false)) {
            self.0.insert(claim.number, claim);
        }
    }

    /// The MD5 that a client claimed for a part.
    pub fn md5(&self, number: u32) -> Option<Md5> {
        self.0.get(&number).and_then(|claim| claim.md5)
    }

    /// Whether the gateway signed a request for this part in this cut.
    pub fn is_signed(&self, number: u32, cut: u8) -> bool {
        self.0
            .get(&number)
            .is_some_and(|claim| claim.signed_for == Some(cut))
    }

    /// Whether one of these claims shows that a client cuts the file in another way: the request for another MD5 of the
    /// same part was signed in this cut.
    pub fn show_another_cut<'a>(
        &self,
        cut: u8,
        claims: impl IntoIterator<Item = &'a Claim>,
    ) -> bool {
        claims.into_iter().any(|claim| {
            claim.signed_for.is_some()
                && self.is_signed(claim.number, cut)
                && self.md5(claim.number) != claim.md5
        })
    }

    /// Whether a client claimed this part.
    pub fn contains(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    /// All claims by number.
    pub fn iter(&self) -> impl Iterator<Item = Claim> {
        self.0.values().copied()
    }

    /// Whether no client has claimed a part.
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

impl Extend<Part> for Parts {
    /// Adds parts, and then drops digest states, as [`Parts::insert`] does.
    fn extend<I: IntoIterator<Item = Part>>(&mut self, parts: I) {
        let before = self.committed;
        let mut numbers = Vec::new();
        for part in parts {
            numbers.extend([part.number.saturating_sub(1), part.number]);
            self.put(part);
        }
        numbers.extend(before..self.committed);
        numbers
            .into_iter()
            .for_each(|number| self.drop_digest_of(number));
    }
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        let mut all = Self::default();
        all.extend(parts);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::{DigestChoice, FileDigest};

    fn part(number: u32, md5: Option<Md5>) -> Part {
        Part {
            number,
            offset: u64::from(number - 1),
            size: 1,
            checksum: md5.map(Checksum::Md5),
            receipt: number.to_string(),
            digest: Some(FileDigest::begin(DigestChoice::Md5).unwrap().state()),
        }
    }

    /// The numbers of the parts with a digest state.
    fn digests(parts: &Parts) -> Vec<u32> {
        let kept = parts.iter().filter(|part| part.digest.is_some());
        kept.map(|part| part.number).collect()
    }

    #[test]
    fn digest_states_stay_at_the_last_committed_part_and_after_a_gap() {
        let md5 = Some(Md5::of(b""));
        let mut parts = Parts::default();
        for (number, kept) in [
            (1, &[1][..]),
            (4, &[1, 4]),
            (3, &[1, 3, 4]),
            (2, &[4]),
            (2, &[4]),
        ] {
            parts.insert(part(number, md5));
            assert_eq!(digests(&parts), kept, "after part {number}");
        }
    }

    #[test]
    fn digest_states_around_a_part_without_a_checksum_stay() {
        let md5 = Some(Md5::of(b""));
        let mut parts: Parts = [(1, md5), (2, md5), (3, None), (4, md5), (5, md5)]
            .map(|(number, md5)| part(number, md5))
            .into_iter()
            .collect();
        assert_eq!(digests(&parts), [2, 3, 5]);
        parts.insert(part(3, md5));
        assert_eq!(digests(&parts), [5]);
    }

    #[test]
    fn only_another_part_in_the_committed_prefix_counts_as_rewritten() {
        let md5 = Some(Md5::of(b""));
        let mut parts: Parts = [1, 2, 4]
            .map(|number| part(number, md5))
            .into_iter()
            .collect();
        let other = |number| Part {
            receipt: "other".into(),
            ..part(number, md5)
        };
        for (part, rewritten) in [
            (part(2, md5), 0),
            (other(4), 0),
            (other(2), 1),
            (other(2), 1),
        ] {
            parts.insert(part);
            assert_eq!(parts.rewritten(), rewritten);
        }
    }
}
