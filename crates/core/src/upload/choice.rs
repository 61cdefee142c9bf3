//! Which digest of a whole file is computed.

use serde::{Deserialize, Serialize};

/// Which digest of a whole file the gateway computes while it receives the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub enum DigestChoice {
    /// [`Md5`](Self::Md5) if its sender promised one, or if the file fits one part; otherwise [`Crc64Nvme`](Self::Crc64Nvme). A
    /// record has one of the others.
    #[default]
    Auto,
    /// The MD5. Its bytes are hashed one after the other.
    Md5,
    /// The CRC-64/NVME, which combines from the parts.
    Crc64Nvme,
    /// None of them.
    None,
}

/// How records keep it. Releases that only know `skip_file_digest` compute no digest if it is not the MD5.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Stored {
    skip_file_digest: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_digest: Option<Other>,
}

/// The choices that `skip_file_digest` cannot express.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Other {
    Auto,
    Crc64nvme,
}

// === impl DigestChoice ===

impl DigestChoice {
    /// The choice for a file, whose MD5 may have been promised, and which may fit one part.
    #[must_use]
    pub fn decided(self, is_promised: bool, fits_one_part: bool) -> Self {
        match self {
            Self::Auto if is_promised || fits_one_part => Self::Md5,
            Self::Auto => Self::Crc64Nvme,
            decided => decided,
        }
    }

    /// The choice of a record that keeps it as two flags.
    pub fn kept(skips_md5: bool, keeps_crc64: bool) -> Self {
        match (skips_md5, keeps_crc64) {
            (_, true) => Self::Crc64Nvme,
            (true, false) => Self::None,
            (false, false) => Self::Md5,
        }
    }

    /// Whether an MD5 of the whole file is computed, or may be.
    pub fn allows_md5(self) -> bool {
        matches!(self, Self::Auto | Self::Md5)
    }
}

impl From<Stored> for DigestChoice {
    fn from(stored: Stored) -> Self {
        match (stored.file_digest, stored.skip_file_digest) {
            (Some(Other::Auto), _) => Self::Auto,
            (Some(Other::Crc64nvme), _) => Self::Crc64Nvme,
            (None, skips_md5) => Self::kept(skips_md5, false),
        }
    }
}

impl From<DigestChoice> for Stored {
    fn from(choice: DigestChoice) -> Self {
        Self {
            skip_file_digest: !choice.allows_md5(),
            file_digest: match choice {
                DigestChoice::Auto => Some(Other::Auto),
                DigestChoice::Crc64Nvme => Some(Other::Crc64nvme),
                DigestChoice::Md5 | DigestChoice::None => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_before_compute_no_md5_for_another_choice() {
        for (choice, text) in [
            (DigestChoice::Md5, r#"{"skip_file_digest":false}"#),
            (DigestChoice::None, r#"{"skip_file_digest":true}"#),
            (
                DigestChoice::Crc64Nvme,
                r#"{"skip_file_digest":true,"file_digest":"crc64nvme"}"#,
            ),
            (
                DigestChoice::Auto,
                r#"{"skip_file_digest":false,"file_digest":"auto"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&choice).unwrap(), text);
            let read: DigestChoice = serde_json::from_str(text).unwrap();
            assert_eq!(read, choice);
        }
    }

    #[test]
    fn auto_is_the_md5_if_it_is_promised_or_costs_nothing() {
        for (is_promised, fits_one_part, decided) in [
            (true, false, DigestChoice::Md5),
            (false, true, DigestChoice::Md5),
            (false, false, DigestChoice::Crc64Nvme),
        ] {
            assert_eq!(
                DigestChoice::Auto.decided(is_promised, fits_one_part),
                decided
            );
        }
        assert_eq!(DigestChoice::None.decided(true, true), DigestChoice::None);
    }
}
