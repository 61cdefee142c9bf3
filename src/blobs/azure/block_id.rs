//! Block ids.
//!
//! All block ids of one blob must have the same length before encoding: here 6 bytes. A part that a client puts with a
//! signed URL gets six ASCII digits: the number of the client's cut, and its own number in five digits. In the first cut
//! these are the ids that PlaceOS clients expect (`base64("000001")`). A part that the gateway puts for a gRPC stream gets
//!
//! ```text
//! bit   47      46…31         30…0
//!        1   part number   writer tag
//! ```
//!
//! No ASCII digit has the highest bit set, so the two kinds never collide, and streams with different writer tags never
//! overwrite each other's blocks: a commit gets exactly the blocks that it names.

use base64::{Engine, engine::general_purpose::STANDARD};
use upload_gateway_core::{
    error::{Error, Result},
    upload::{MAX_CUT, WriterTag},
};

const LENGTH: usize = 6;
const MARKER: u64 = 1 << 47;
const NUMBER_SHIFT: u32 = 31;
/// What the digit of the cut counts.
const CUT: u32 = 100_000;

/// A block id made by this gateway.
///
/// ```
/// use upload_gateway::blobs::azure::BlockId;
///
/// let id = BlockId::Signed { number: 1, cut: 0 };
/// assert_eq!(id.to_bytes(), b"000001");
/// assert_eq!(BlockId::from_base64(&id.to_base64()), Some(id));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockId {
    /// A part of a stream.
    Streamed {
        /// The part's number, at most 50,000: the largest number of blocks of a blob.
        number: u16,
        /// The stream that wrote it.
        writer: WriterTag,
    },
    /// A part put with a signed URL.
    Signed {
        /// The part's number, at most 50,000.
        number: u32,
        /// The cut to which it belongs, at most [`MAX_CUT`].
        cut: u8,
    },
}

// === impl BlockId ===

impl BlockId {
    /// The id of a part of a stream.
    ///
    /// # Errors
    /// `Internal` if the number is too large for a block.
    pub(super) fn streamed(number: u32, writer: WriterTag) -> Result<Self> {
        let number =
            u16::try_from(number).map_err(|error| Error::internal("make a block id", error))?;
        Ok(Self::Streamed { number, writer })
    }

    /// The part's number.
    pub fn number(self) -> u32 {
        match self {
            Self::Streamed { number, .. } => number.into(),
            Self::Signed { number, .. } => number,
        }
    }

    /// The stream that put it; `None` for a signed part.
    pub fn writer(self) -> Option<WriterTag> {
        match self {
            Self::Streamed { writer, .. } => Some(writer),
            Self::Signed { .. } => None,
        }
    }

    /// The cut to which a signed part belongs; 0 for a part of a stream.
    pub fn cut(self) -> u8 {
        match self {
            Self::Streamed { .. } => 0,
            Self::Signed { cut, .. } => cut,
        }
    }

    /// The id in bytes. The SDK encodes it.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Streamed { number, writer } => {
                let bits = MARKER | u64::from(number) << NUMBER_SHIFT | u64::from(writer.bits());
                bits.to_be_bytes()[size_of::<u64>() - LENGTH..].to_vec()
            }
            Self::Signed { number, cut } => {
                let digits = number % CUT + u32::from(cut.min(MAX_CUT)) * CUT;
                format!("{digits:0LENGTH$}").into_bytes()
            }
        }
    }

    /// The id as URLs, block lists and receipts contain it.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.to_bytes())
    }

    /// The inverse of [`BlockId::to_base64`]; `None` for ids that this gateway does not make.
    pub fn from_base64(name: &str) -> Option<Self> {
        Self::from_bytes(&STANDARD.decode(name).ok()?)
    }

    /// The inverse of [`BlockId::to_bytes`]; `None` for ids that this gateway does not make.
    pub fn from_bytes(id: &[u8]) -> Option<Self> {
        let id: [u8; LENGTH] = id.try_into().ok()?;
        if id.iter().all(u8::is_ascii_digit) {
            let number = id
                .iter()
                .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
            return Some(Self::Signed {
                number: number % CUT,
                cut: u8::try_from(number / CUT).ok()?,
            });
        }
        let bits = id.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        let number = (bits & !MARKER) >> NUMBER_SHIFT;
        let tag = bits & ((1 << NUMBER_SHIFT) - 1);
        (bits & MARKER != 0).then_some(Self::Streamed {
            number: number.try_into().ok()?,
            writer: WriterTag::from_bits(tag.try_into().ok()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn streamed_ids_contain_part_and_writer(number: u16, tag in 1u32..=0x7fff_ffff) {
            let id = BlockId::Streamed { number, writer: WriterTag::from_bits(tag).unwrap() };
            let bytes = id.to_bytes();
            prop_assert_eq!(bytes.len(), LENGTH);
            prop_assert!(bytes[0] >= 0x80);
            prop_assert_eq!(BlockId::from_bytes(&bytes), Some(id));
            prop_assert_eq!(id.to_base64().len(), 8);
            prop_assert_eq!(BlockId::from_base64(&id.to_base64()), Some(id));
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            if let Some(id) = BlockId::from_bytes(&bytes) {
                prop_assert_eq!(id.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn signed_ids_are_six_digits() {
        for (number, cut, digits) in [(1, 0, "000001"), (50_000, 0, "050000"), (7, 9, "900007")] {
            let id = BlockId::Signed { number, cut };
            assert_eq!(id.to_base64(), STANDARD.encode(digits));
            assert_eq!(BlockId::from_bytes(digits.as_bytes()), Some(id));
        }
    }

    #[test]
    fn other_ids_are_not_ours() {
        for id in [
            &b""[..],
            b"00001",
            b"0000001",
            b"abcdef",
            b"+00001",
            &[0x80, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(BlockId::from_bytes(id), None, "{id:?}");
        }
    }
}
