//! CRC-64/NVME, the checksum that S3 computes over whole objects.
//!
//! AWS calls it CRC64NVME (`x-amz-checksum-crc64nvme`). Azure's CRC64 (`x-ms-content-crc64`) is the same function; its header has
//! the bytes in the reverse order. Checksums of consecutive pieces combine, so no piece waits for the one before.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm, checksum, checksum_combine};
use serde::{Deserialize, Serialize};

/// A CRC-64/NVME. Its text form is that of S3: base64 of the eight bytes, the most significant one first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Crc64Nvme(pub u64);

/// The text is not a CRC-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a CRC64NVME: base64 of 8 bytes")]
pub struct InvalidCrc64;

// === impl Crc64Nvme ===

impl Crc64Nvme {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(checksum(CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// The checksum of what this one covers, followed by `size` bytes with the checksum `next`.
    #[must_use]
    pub fn followed_by(self, next: Self, size: u64) -> Self {
        match size {
            0 => self,
            _ => Self(checksum_combine(
                CrcAlgorithm::Crc64Nvme,
                self.0,
                next.0,
                size,
            )),
        }
    }
}

impl fmt::Display for Crc64Nvme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Crc64Nvme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crc64Nvme({self})")
    }
}

impl FromStr for Crc64Nvme {
    type Err = InvalidCrc64;

    fn from_str(text: &str) -> Result<Self, InvalidCrc64> {
        let bytes = STANDARD.decode(text).map_err(|_| InvalidCrc64)?;
        let bytes = bytes.try_into().map_err(|_| InvalidCrc64)?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

impl TryFrom<String> for Crc64Nvme {
    type Error = InvalidCrc64;

    fn try_from(text: String) -> Result<Self, InvalidCrc64> {
        text.parse()
    }
}

impl From<Crc64Nvme> for String {
    fn from(crc64: Crc64Nvme) -> Self {
        crc64.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_the_function_of_s3() {
        // The check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(Crc64Nvme::of(b"123456789").0, 0xae8b_1486_0a79_9888);
        let hello = Crc64Nvme::of(b"Hello World");
        assert_eq!(hello.to_string(), "ZZYyy35L4mE=");
        assert_eq!("ZZYyy35L4mE=".parse(), Ok(hello));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "ZZYyy35L4mE", "ZZYyy35L4mEA", "x"] {
            assert!(text.parse::<Crc64Nvme>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_combine_wherever_they_are_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            size in 1..100_usize,
        ) {
            let combined = bytes.chunks(size).fold(Crc64Nvme::default(), |before, piece| {
                before.followed_by(Crc64Nvme::of(piece), piece.len() as u64)
            });
            prop_assert_eq!(combined, Crc64Nvme::of(&bytes));
        }
    }
}
