//! Bytes that are being added to a digest.

use bytes::Bytes;
use upload_gateway_md5::{Block, Words};

use crate::upload::RunningMd5;

/// A digest and the bytes that follow. The engine takes their whole blocks; `md-5` has taken what is before the first of
/// them, and takes what is after the last.
#[derive(Debug)]
pub(super) struct Chain {
    /// The digest up to `at`.
    digest: RunningMd5,
    bytes: Bytes,
    at: usize,
}

// === impl Chain ===

impl Chain {
    /// Completes the block that was begun.
    pub(super) fn new(mut digest: RunningMd5, bytes: Bytes) -> Self {
        let at = digest.missing().min(bytes.len());
        digest.update(&bytes[..at]);
        Self { digest, bytes, at }
    }

    /// The whole blocks that are left.
    pub(super) fn blocks(&self) -> &[Block] {
        self.bytes[self.at..].as_chunks().0
    }

    /// Whether no whole block is left.
    pub(super) fn is_ended(&self) -> bool {
        self.blocks().is_empty()
    }

    pub(super) fn words(&self) -> Words {
        self.digest.words()
    }

    /// The next `blocks` blocks were hashed, which led to the state `words`.
    pub(super) fn advance(&mut self, words: Words, blocks: usize) {
        self.digest.advance(words, blocks);
        self.at += blocks * size_of::<Block>();
    }

    /// The digest up to the last byte.
    pub(super) fn finish(mut self) -> RunningMd5 {
        self.digest.update(&self.bytes[self.at..]);
        self.digest
    }
}
