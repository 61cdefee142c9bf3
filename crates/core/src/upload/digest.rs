//! Digests of parts and of whole files.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::Digest;
use serde::{Deserialize, Serialize};

use super::{Crc64Nvme, DigestChoice, RunningMd5};

/// An MD5 digest. Its text form is base64, as in `Content-MD5` (RFC 1864). Hexadecimal text is parsed, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Md5(pub [u8; 16]);

/// The text is not an MD5, or the bytes are not the state of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an MD5: base64 of 16 bytes, or 32 hexadecimal digits")]
pub struct InvalidDigest;

/// The MD5 of the MD5s of an object's parts, and the number of parts. S3 builds the ETag of an object from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompositeMd5 {
    /// The MD5 of the concatenated MD5s of the parts.
    pub md5: Md5,
    /// The number of parts.
    pub parts: u32,
}

/// The digest of a file that is still being received. It can be saved after any byte and continued by another gateway.
#[derive(Clone)]
pub enum FileDigest {
    /// Of all bytes so far, one after the other.
    Md5(RunningMd5),
    /// Of all bytes so far.
    Crc64Nvme(Crc64Nvme),
}

/// What is known of the digests of a whole file or object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digests {
    /// The MD5.
    pub md5: Option<Md5>,
    /// The CRC-64/NVME.
    pub crc64nvme: Option<Crc64Nvme>,
}

/// The saved state of a [`FileDigest`]. That of an MD5 has no trailing zeros, so that it takes 24 bytes at a multiple of 64
/// bytes. That of a CRC-64 takes 25 bytes, which are no state of an MD5: releases that only know MD5 refuse it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DigestState(Vec<u8>);

// === impl Md5 ===

impl Md5 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(md5::Md5::digest(bytes).into())
    }

    /// The lower-case hexadecimal form, which S3 uses in ETags.
    pub fn to_hex(self) -> String {
        // Without a formatter: a large record has tens of thousands of MD5s.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let nibbles = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles
            .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
            .collect()
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Md5({self})")
    }
}

impl FromStr for Md5 {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        // The base64 of 16 bytes is shorter.
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let bits = u128::from_str_radix(text, 16).map_err(|_| InvalidDigest)?;
            return Ok(Self(bits.to_be_bytes()));
        }
        let bytes = STANDARD.decode(text).map_err(|_| InvalidDigest)?;
        bytes.try_into().map(Self).map_err(|_| InvalidDigest)
    }
}

impl TryFrom<String> for Md5 {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Md5> for String {
    fn from(md5: Md5) -> Self {
        md5.to_string()
    }
}

// === impl CompositeMd5 ===

impl CompositeMd5 {
    /// The composite that the ETag of a multipart object of S3 is, without quotes, if it has the form of one.
    pub fn of_etag(etag: &str) -> Option<Self> {
        let (md5, parts) = etag.split_once('-')?;
        // A valid MD5 of this length is in hexadecimal, not in base64.
        let md5 = md5.parse().ok().filter(|_| md5.len() == 32)?;
        let parts = parts.parse().ok()?;
        Some(Self { md5, parts })
    }

    /// The composite of parts with these MD5s, in this order.
    pub fn of(parts: impl IntoIterator<Item = Md5>) -> Self {
        let mut all = md5::Md5::new();
        let mut count = 0;
        for part in parts {
            all.update(part.0);
            count += 1;
        }
        Self {
            md5: Md5(all.finalize().into()),
            parts: count,
        }
    }
}

// === impl Digests ===

impl Digests {
    /// These digests; those that are not known are of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            md5: self.md5.or(other.md5),
            crc64nvme: self.crc64nvme.or(other.crc64nvme),
        }
    }

    /// Whether `known` has one of these digests: then they are of the same bytes.
    pub fn is_proven_by(&self, known: &Self) -> bool {
        self.md5.is_some() && self.md5 == known.md5
            || self.crc64nvme.is_some() && self.crc64nvme == known.crc64nvme
    }

    /// Whether both know the same digest, and it differs: then they are of different bytes.
    pub fn contradict(&self, other: &Self) -> bool {
        let md5s = self.md5.zip(other.md5);
        let crc64s = self.crc64nvme.zip(other.crc64nvme);
        md5s.is_some_and(|(one, two)| one != two) || crc64s.is_some_and(|(one, two)| one != two)
    }
}

impl From<Md5> for Digests {
    fn from(md5: Md5) -> Self {
        Self {
            md5: Some(md5),
            crc64nvme: None,
        }
    }
}

impl From<Crc64Nvme> for Digests {
    fn from(crc64nvme: Crc64Nvme) -> Self {
        Self {
            md5: None,
            crc64nvme: Some(crc64nvme),
        }
    }
}

// === impl FileDigest ===

/// How the state of a CRC-64 ends after its 8 bytes: zeros, and a fill level that no MD5 block has.
const CRC64_MARK: [u8; 17] = {
    let mut mark = [0; 17];
    mark[16] = 255;
    mark
};

impl FileDigest {
    /// Of no bytes yet. `None` if none is chosen.
    pub fn begin(choice: DigestChoice) -> Option<Self> {
        match choice {
            DigestChoice::Auto | DigestChoice::Md5 => Some(Self::Md5(RunningMd5::default())),
            DigestChoice::Crc64Nvme => Some(Self::Crc64Nvme(Crc64Nvme::default())),
            DigestChoice::None => None,
        }
    }

    /// Adds the next part of the file, of `size` bytes with this CRC-64/NVME, if that is enough.
    pub fn combined(&self, crc64: Crc64Nvme, size: u64) -> Option<Self> {
        match self {
            Self::Md5(_) => None,
            Self::Crc64Nvme(before) => Some(Self::Crc64Nvme(before.combine(crc64, size))),
        }
    }

    /// Adds the file's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(md5) => md5.update(bytes),
            Self::Crc64Nvme(crc64) => *crc64 = crc64.extend(bytes),
        }
    }

    /// The digest of all bytes added so far.
    pub fn finish(self) -> Digests {
        match self {
            Self::Md5(md5) => md5.finish().into(),
            Self::Crc64Nvme(crc64) => crc64.into(),
        }
    }

    /// The state to continue from.
    pub fn state(&self) -> DigestState {
        DigestState(match self {
            Self::Md5(md5) => md5.state(),
            Self::Crc64Nvme(crc64) => [&crc64.0.to_be_bytes()[..], &CRC64_MARK].concat(),
        })
    }

    /// Continues from a saved [`state`](FileDigest::state).
    ///
    /// # Errors
    /// The state is invalid.
    pub fn resume(state: &DigestState) -> Result<Self, InvalidDigest> {
        match state.crc64nvme() {
            Some(crc64) => Ok(Self::Crc64Nvme(crc64)),
            None => RunningMd5::resume(&state.0).map(Self::Md5),
        }
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FileDigest")
    }
}

// === impl DigestState ===

impl DigestState {
    /// The CRC-64/NVME of all bytes so far, if the state is that of one.
    pub fn crc64nvme(&self) -> Option<Crc64Nvme> {
        let (crc64, mark) = self.0.split_first_chunk()?;
        (*mark == CRC64_MARK).then(|| Crc64Nvme(u64::from_be_bytes(*crc64)))
    }
}

impl fmt::Debug for DigestState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DigestState")
    }
}

impl From<DigestState> for String {
    fn from(state: DigestState) -> Self {
        STANDARD.encode(state.0)
    }
}

impl TryFrom<String> for DigestState {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        STANDARD.decode(text).map(Self).map_err(|_| InvalidDigest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entity_tag_of_a_multipart_upload_is_a_composite() {
        let composite = CompositeMd5::of([Md5::of(b"one"), Md5::of(b"two")]);
        let etag = format!("{}-2", composite.md5.to_hex());
        assert_eq!(CompositeMd5::of_etag(&etag), Some(composite));
        for etag in ["", "-2", "x-2", &composite.md5.to_hex()] {
            assert_eq!(CompositeMd5::of_etag(etag), None, "{etag}");
        }
    }

    #[test]
    fn one_equal_digest_proves_bytes_and_another_one_contradicts_them() {
        let of = |bytes: &[u8]| Digests {
            md5: Some(Md5::of(bytes)),
            crc64nvme: Some(Crc64Nvme::of(bytes)),
        };
        let (own, other, unknown) = (of(b"a"), of(b"b"), Digests::default());
        // An ETag that has the form of an MD5, of an encrypted object.
        let encrypted = Digests {
            md5: other.md5,
            ..own
        };
        for (known, is_proof, is_contradiction) in [
            (own, true, false),
            (own.md5.unwrap().into(), true, false),
            (own.crc64nvme.unwrap().into(), true, false),
            (other, false, true),
            (other.md5.unwrap().into(), false, true),
            (encrypted, true, true),
            (unknown, false, false),
        ] {
            let found = (own.is_proven_by(&known), own.contradict(&known));
            assert_eq!(found, (is_proof, is_contradiction), "{known:?}");
        }
        assert!(!unknown.is_proven_by(&unknown));
    }

    #[test]
    fn base64_and_hexadecimal_name_the_same_digest() {
        let md5 = Md5::of(b"a");
        for text in [md5.to_string(), md5.to_hex(), md5.to_hex().to_uppercase()] {
            assert_eq!(text.parse(), Ok(md5), "{text}");
        }
        for text in [
            "",
            "abc",
            &md5.to_hex()[1..],
            &"g".repeat(32),
            &"+".repeat(32),
        ] {
            assert!(text.parse::<Md5>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_can_be_saved_and_continued_after_any_byte() {
        let bytes: Vec<u8> = (0..1000u16).map(|value| value.to_le_bytes()[0]).collect();
        let choices = [
            (DigestChoice::Md5, Digests::from(Md5::of(&bytes))),
            (DigestChoice::Crc64Nvme, Crc64Nvme::of(&bytes).into()),
        ];
        for (choice, expected) in choices {
            for cut in [0, 1, 63, 64, 65, 640, 1000] {
                let mut first = FileDigest::begin(choice).unwrap();
                first.update(&bytes[..cut]);
                let text = String::from(first.state());
                let state = DigestState::try_from(text).unwrap();
                let mut second = FileDigest::resume(&state).unwrap();
                second.update(&bytes[cut..]);
                assert_eq!(second.finish(), expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_state_of_a_crc64_is_no_state_of_an_md5() {
        let state = FileDigest::Crc64Nvme(Crc64Nvme(7)).state();
        assert!(RunningMd5::resume(&state.0).is_err());
    }

    #[test]
    fn an_invalid_state_is_rejected() {
        assert!(FileDigest::resume(&DigestState(vec![255; 88])).is_err());
        assert!(FileDigest::resume(&DigestState(vec![1; 200])).is_err());
    }

    #[test]
    fn the_state_at_a_part_boundary_is_short() {
        let mut digest = FileDigest::begin(DigestChoice::Md5).unwrap();
        digest.update(&[7; 640]);
        assert!(digest.state().0.len() <= 24);
    }
}
