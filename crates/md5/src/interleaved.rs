//! Two to four chains in the registers of a core.

use std::array;

use crate::{
    Block, Words,
    compress::{Word, compress},
};

// === impl Word for u32 ===

impl Word for u32 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn plus_constant(self, constant: u32) -> Self {
        self.wrapping_add(constant)
    }

    #[inline(always)]
    fn rotated(self, bits: u32) -> Self {
        self.rotate_left(bits)
    }
}

/// Advances up to `V` chains, at least one. What is left of `V` repeats the last of them.
#[expect(
    clippy::needless_range_loop,
    reason = "a block of every source is needed at once"
)]
pub(crate) fn advance<const V: usize>(chains: &mut [Words], inputs: &[&[Block]]) {
    let (last, blocks) = (chains.len() - 1, inputs[0].len());
    let sources: [&[Block]; V] = array::from_fn(|v| inputs[v.min(last)]);
    let mut state: [[u32; V]; 4] =
        array::from_fn(|word| array::from_fn(|v| chains[v.min(last)][word]));
    for at in 0..blocks {
        let block: [&Block; V] = array::from_fn(|v| &sources[v][at]);
        let words: [[u32; V]; 16] = array::from_fn(|word| {
            array::from_fn(|v| u32::from_le_bytes(block[v].as_chunks().0[word]))
        });
        compress(&mut state, &words);
    }
    for (v, chain) in chains.iter_mut().enumerate() {
        *chain = array::from_fn(|word| state[word][v]);
    }
}
