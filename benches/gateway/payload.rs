//! The bytes that are uploaded: one random block, repeated.

use bytes::{Bytes, BytesMut};
use rand::Rng;
use upload_gateway_core::upload::{DigestChoice, FileDigest, Md5, PART_SIZE};

use crate::{MIB, Result};

const BLOCK_SIZE: u64 = 64 * MIB;

/// A file of any size, of which only one block is in memory.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// The block, followed by its beginning: a piece of up to a part's size is contiguous wherever it starts.
    block: Bytes,
}

impl Payload {
    pub(crate) fn random() -> Self {
        let (size, more) = (index(BLOCK_SIZE), index(PART_SIZE));
        let mut block = BytesMut::zeroed(size + more);
        rand::rng().fill_bytes(&mut block[..size]);
        block.copy_within(..more, size);
        Self {
            block: block.freeze(),
        }
    }

    /// The file's pieces of `piece_size` bytes, at most a part's, with their offsets. Nothing is copied.
    pub(crate) fn pieces(
        &self,
        file_size: u64,
        piece_size: u64,
    ) -> impl Iterator<Item = (u64, Bytes)> + use<> {
        let block = self.block.clone();
        (0..file_size.div_ceil(piece_size)).map(move |number| {
            let offset = number * piece_size;
            let begin = index(offset % BLOCK_SIZE);
            let length = index(piece_size.min(file_size - offset));
            (offset, block.slice(begin..begin + length))
        })
    }

    /// The digest of a file of that size.
    pub(crate) fn md5(&self, file_size: u64) -> Md5 {
        let mut digest = FileDigest::begin(DigestChoice::Md5).expect("a digest is chosen");
        for (_, piece) in self.pieces(file_size, PART_SIZE) {
            digest.update(&piece);
        }
        digest.finish().md5.expect("the chosen digest")
    }
}

/// Sizes here are at most those of a block, or of what the caller has in memory.
fn index(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A size in the type of the protocol.
pub(crate) fn signed(size: u64) -> Result<i64> {
    Ok(i64::try_from(size)?)
}
