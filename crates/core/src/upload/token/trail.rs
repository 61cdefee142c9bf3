//! Distinguishes the parts of a committed prefix from other parts that the store lists under the same numbers.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::upload::{Capabilities, Part, Parts, WriterTag};

/// The largest number of runs in one trail, which takes 4 kB. A run ends when another writer commits a part. When a
/// trail is full, later parts are not added to it and cannot be rebuilt.
const MAX_RUNS: usize = 256;

/// Identifies the parts of a committed prefix in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    parts: u32,
    size: u64,
    mark: Mark,
}

/// How the parts are distinguished from others with the same numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    /// If the store keeps one part per number (S3): a hash over the receipts, and whether every receipt is the MD5 of
    /// its part.
    Chain(ChainHash, bool),
    /// If the names of parts contain their writers (Azure): runs of a writer's tag (0 for a client's own parts) and the
    /// number of consecutive parts that it put.
    Writers(Vec<(u32, u32)>),
}

/// SHA-256 over the previous hash, and the number, size and receipt of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct ChainHash([u8; 32]);

// === impl Trail ===

impl Trail {
    /// The trail of an empty prefix, for a store with these capabilities.
    pub fn new(capabilities: &Capabilities) -> Self {
        if !capabilities.names_writers {
            return Self::default();
        }
        Self {
            mark: Mark::Writers(Vec::new()),
            ..Self::default()
        }
    }

    /// The number of parts that it identifies.
    pub fn parts(&self) -> u32 {
        self.parts
    }

    /// The end of the prefix, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the MD5s in the store's list are those of the parts.
    pub(super) fn has_md5s(&self) -> bool {
        !matches!(self.mark, Mark::Chain(_, false))
    }

    /// Whether `parts` belong to the trail. The hash can only be checked with all parts; parts with a writer are
    /// identified one by one.
    pub(super) fn matches(&self, parts: &[Part]) -> bool {
        match &self.mark {
            Mark::Chain(hash, _) => {
                let chained = parts.iter().fold(ChainHash::default(), ChainHash::next);
                parts.len() == self.parts as usize && chained == *hash
            }
            Mark::Writers(_) => true,
        }
    }

    /// Adds the parts up to the last committed one. `writer_of` returns the writer in a receipt, if receipts contain
    /// it.
    pub fn follow(&mut self, parts: &Parts, writer_of: impl Fn(&str) -> Option<WriterTag>) {
        for number in self.parts + 1..=parts.committed() {
            let added = parts
                .get(number)
                .is_some_and(|part| self.add(part, writer_of(&part.receipt)));
            if !added {
                return;
            }
        }
    }

    fn add(&mut self, part: &Part, writer: Option<WriterTag>) -> bool {
        match &mut self.mark {
            Mark::Chain(hash, is_md5) => {
                *hash = hash.next(part);
                *is_md5 &= part.md5().is_some_and(|md5| md5.to_hex() == part.receipt);
            }
            Mark::Writers(runs) => {
                let bits = writer.map_or(0, WriterTag::bits);
                let is_full = runs.len() == MAX_RUNS;
                match runs.last_mut() {
                    Some((last, count)) if *last == bits => *count += 1,
                    _ if is_full => return false,
                    _ => runs.push((bits, 1)),
                }
            }
        }
        self.parts = part.number;
        self.size = part.end();
        true
    }

    /// The writer of each part. Endless `None`s if parts have no writer.
    pub(super) fn writers(&self) -> Box<dyn Iterator<Item = Option<WriterTag>> + '_> {
        match &self.mark {
            Mark::Chain(..) => Box::new(std::iter::repeat(None)),
            Mark::Writers(runs) => Box::new(runs.iter().flat_map(|&(bits, count)| {
                std::iter::repeat_n(WriterTag::from_bits(bits), count as usize)
            })),
        }
    }
}

impl Default for Trail {
    /// The trail of an empty prefix, which is identified by receipts.
    fn default() -> Self {
        Self {
            parts: 0,
            size: 0,
            mark: Mark::Chain(ChainHash::default(), true),
        }
    }
}

// === impl ChainHash ===

impl ChainHash {
    fn next(self, part: &Part) -> Self {
        let hash = Sha256::new()
            .chain_update(self.0)
            .chain_update(part.number.to_be_bytes())
            .chain_update(part.size.to_be_bytes())
            .chain_update(&part.receipt);
        Self(hash.finalize().into())
    }
}

impl From<ChainHash> for String {
    fn from(hash: ChainHash) -> Self {
        STANDARD_NO_PAD.encode(hash.0)
    }
}

impl TryFrom<String> for ChainHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD_NO_PAD.decode(text).ok();
        let hash = bytes.and_then(|bytes| bytes.try_into().ok());
        hash.map(Self).ok_or("not a hash of 32 bytes")
    }
}
