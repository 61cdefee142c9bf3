//! An MD5 that is continued from its state, by `md5` or by an engine that advances several side by side.

use md5::{
    Digest,
    digest::common::hazmat::{SerializableState, SerializedState},
};
use upload_gateway_md5::{Block, Words};

use super::{InvalidDigest, Md5};

// The saved state of `md-5` is: the four words; the number of whole blocks in 8 bytes; the number of bytes of the block that
// was begun, in one; these bytes. Numbers are little-endian. Records and resume tokens have this, so it never changes.
/// The size of the words.
const WORDS: usize = 16;
/// Where the number of bytes of the block that was begun is.
const BEGUN: usize = WORDS + 8;

/// The MD5 of the bytes so far.
#[derive(Debug, Clone, Default)]
pub struct RunningMd5(md5::Md5);

// === impl RunningMd5 ===

impl RunningMd5 {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The MD5 of all bytes added so far.
    pub fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }

    /// The state to continue from. Trailing zeros are left out, so that it takes 24 bytes at a multiple of 64 bytes.
    pub(crate) fn state(&self) -> Vec<u8> {
        let mut bytes = self.0.serialize().to_vec();
        let last = bytes.iter().rposition(|&byte| byte != 0);
        bytes.truncate(last.map_or(0, |last| last + 1));
        bytes
    }

    /// Continues from a state.
    ///
    /// # Errors
    /// The state is invalid.
    pub(crate) fn resume(state: &[u8]) -> Result<Self, InvalidDigest> {
        let mut serialized = SerializedState::<md5::Md5>::default();
        serialized
            .get_mut(..state.len())
            .ok_or(InvalidDigest)?
            .copy_from_slice(state);
        md5::Md5::deserialize(&serialized)
            .map(Self)
            .map_err(|_| InvalidDigest)
    }

    /// How many bytes complete the block of 64 bytes that was begun: 0 after whole blocks.
    pub(crate) fn missing(&self) -> usize {
        let begun = usize::from(self.0.serialize()[BEGUN]);
        (size_of::<Block>() - begun) % size_of::<Block>()
    }

    /// The state after the whole blocks so far.
    pub(crate) fn words(&self) -> Words {
        let mut words = Words::default();
        let serialized = self.0.serialize();
        for (word, bytes) in words.iter_mut().zip(serialized.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        words
    }

    /// Adds `blocks` whole blocks, which lead to the state `words`. No block was begun.
    pub(crate) fn advance(&mut self, words: Words, blocks: usize) {
        let mut serialized = self.0.serialize();
        let (state, rest) = serialized.split_at_mut(WORDS);
        for (bytes, word) in state.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        if let Some(count) = rest.first_chunk_mut() {
            let blocks = u64::from_le_bytes(*count).wrapping_add(blocks as u64);
            *count = blocks.to_le_bytes();
        }
        self.0 = md5::Md5::deserialize(&serialized)
            .expect("a state remains valid with other words and another count");
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    fn text(digest: &RunningMd5) -> String {
        STANDARD.encode(digest.state())
    }

    #[test]
    fn records_keep_the_form_of_a_state() {
        // The words, two blocks, three bytes of the next one, and the three bytes 128, 129, 130.
        let (after_three, after_blocks) = (
            "1E9euELPPLAtkI38KJYbDgIAAAAAAAAAA4CBgg==",
            "1E9euELPPLAtkI38KJYbDgI=",
        );
        let bytes: Vec<u8> = (0..=130).collect();
        let mut digest = RunningMd5::default();
        digest.update(&bytes[..128]);
        assert_eq!(text(&digest), after_blocks);
        assert_eq!(digest.missing(), 0);
        assert_eq!(
            digest.words(),
            [0xb85e_4fd4, 0xb03c_cf42, 0xfc8d_902d, 0x0e1b_9628]
        );
        digest.update(&bytes[128..]);
        assert_eq!(text(&digest), after_three);
        assert_eq!(digest.missing(), 61);
    }

    #[test]
    fn blocks_that_were_hashed_elsewhere_are_added() {
        let bytes: Vec<u8> = (0..=130).collect();
        let (mut begun, mut expected) = (RunningMd5::default(), RunningMd5::default());
        begun.update(&bytes[..64]);
        expected.update(&bytes[..128]);
        begun.advance(expected.words(), 1);
        assert_eq!(text(&begun), text(&expected));
        begun.update(&bytes[128..]);
        assert_eq!(begun.finish(), Md5::of(&bytes));
    }

    #[test]
    fn the_fill_level_of_a_block_is_checked() {
        // The state of a CRC-64 has this byte there.
        let mut state = vec![0; 25];
        state[BEGUN] = 255;
        assert!(RunningMd5::resume(&state).is_err());
    }
}
