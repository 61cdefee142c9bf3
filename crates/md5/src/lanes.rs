//! Chains in the lanes of vectors: one chain a lane of 32 bits.
#![expect(
    clippy::needless_range_loop,
    reason = "the closures of iterators are not compiled with the instructions of the chosen level"
)]

use std::ops::{BitAnd, BitOr, BitXor, Not};

use fearless_simd::{Level, Simd, dispatch, prelude::*, u32x4};

use crate::{
    Block, Words,
    compress::{Word, compress},
};

/// The most lanes of any level: AVX-512 has 16 in a vector.
const MOST: usize = 32;

/// How many blocks of each chain are transposed before they are compressed: vectors are then read a while after their
/// quarters were written, which some cores need.
const STAGED: usize = 4;

/// A word of one chain in each lane.
#[derive(Clone, Copy)]
struct Vector<S: Simd>(S::u32s);

// === impl Vector ===

impl<S: Simd> BitAnd for Vector<S> {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl<S: Simd> BitOr for Vector<S> {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl<S: Simd> BitXor for Vector<S> {
    type Output = Self;

    #[inline(always)]
    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl<S: Simd> Not for Vector<S> {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl<S: Simd> Word for Vector<S> {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    #[inline(always)]
    fn plus_constant(self, constant: u32) -> Self {
        Self(self.0 + constant)
    }

    #[inline(always)]
    fn rotated(self, bits: u32) -> Self {
        Self((self.0 << bits) | (self.0 >> (u32::BITS - bits)))
    }
}

/// The number of lanes of this level: two vectors, because the second takes hardly longer than one alone.
pub(crate) fn most(level: Level) -> usize {
    dispatch!(level, simd => 2 * width(simd))
}

#[inline(always)]
fn width<S: Simd>(_: S) -> usize {
    S::u32s::LEN
}

/// Advances at least one and at most [`most`] chains. All inputs have the same number of blocks.
pub(crate) fn advance(level: Level, chains: &mut [Words], inputs: &[&[Block]]) {
    dispatch!(level, simd => choose_vectors(simd, chains, inputs));
}

#[inline(always)]
fn choose_vectors<S: Simd>(simd: S, chains: &mut [Words], inputs: &[&[Block]]) {
    if chains.len() <= S::u32s::LEN {
        advance_vectors::<S, 1>(simd, chains, inputs);
    } else {
        advance_vectors::<S, 2>(simd, chains, inputs);
    }
}

#[inline(always)]
fn advance_vectors<S: Simd, const V: usize>(simd: S, chains: &mut [Words], inputs: &[&[Block]]) {
    // Lanes without a chain compute the first input once more.
    let mut sources = [inputs[0]; MOST];
    sources[..inputs.len()].copy_from_slice(inputs);
    let mut state = load::<S, V>(simd, chains);
    let zero = Vector(S::u32s::simd_from(simd, 0));
    let mut staged = [[[zero; V]; 16]; STAGED];
    let blocks = inputs[0].len();
    let mut first = 0;
    while first < blocks {
        let count = STAGED.min(blocks - first);
        for at in 0..count {
            transpose::<S, V>(simd, &mut staged[at], &sources, first + at);
        }
        for at in 0..count {
            compress(&mut state, &staged[at]);
        }
        first += count;
    }
    store::<S, V>(state, chains);
}

#[inline(always)]
fn load<S: Simd, const V: usize>(simd: S, chains: &[Words]) -> [[Vector<S>; V]; 4] {
    let zero = Vector(S::u32s::simd_from(simd, 0));
    let mut state: [[Vector<S>; V]; 4] = [[zero; V]; 4];
    for word in 0..4 {
        let mut lanes = [0; MOST];
        for lane in 0..chains.len() {
            lanes[lane] = chains[lane][word];
        }
        for vector in 0..V {
            let from = vector * S::u32s::LEN;
            let lanes = &lanes[from..from + S::u32s::LEN];
            state[word][vector] = Vector(S::u32s::from_slice(simd, lanes));
        }
    }
    state
}

#[inline(always)]
fn store<S: Simd, const V: usize>(state: [[Vector<S>; V]; 4], chains: &mut [Words]) {
    for word in 0..4 {
        let mut lanes = [0; MOST];
        for vector in 0..V {
            let from = vector * S::u32s::LEN;
            let lanes = &mut lanes[from..from + S::u32s::LEN];
            state[word][vector].0.store_slice(lanes);
        }
        for lane in 0..chains.len() {
            chains[lane][word] = lanes[lane];
        }
    }
}

/// Puts each word of the block `at` of all sources into one vector, or two: quarters of blocks of four sources at a time.
#[inline(always)]
fn transpose<S: Simd, const V: usize>(
    simd: S,
    words: &mut [[Vector<S>; V]; 16],
    sources: &[&[Block]; MOST],
    at: usize,
) {
    for vector in 0..V {
        for lane in (0..S::u32s::LEN).step_by(4) {
            let source = vector * S::u32s::LEN + lane;
            let four = [
                &sources[source][at],
                &sources[source + 1][at],
                &sources[source + 2][at],
                &sources[source + 3][at],
            ];
            for quarter in 0..4 {
                let columns = columns(
                    row(simd, four[0], quarter),
                    row(simd, four[1], quarter),
                    row(simd, four[2], quarter),
                    row(simd, four[3], quarter),
                );
                for column in 0..4 {
                    let word = &mut words[4 * quarter + column][vector];
                    columns[column].store_slice(&mut word.0.as_mut_slice()[lane..lane + 4]);
                }
            }
        }
    }
}

/// Four words of a block.
#[inline(always)]
fn row<S: Simd>(simd: S, block: &Block, quarter: usize) -> u32x4<S> {
    let mut row = [0; 4];
    for word in 0..4 {
        row[word] = u32::from_le_bytes(block.as_chunks().0[4 * quarter + word]);
    }
    u32x4::simd_from(simd, row)
}

#[inline(always)]
fn columns<S: Simd>(a: u32x4<S>, b: u32x4<S>, c: u32x4<S>, d: u32x4<S>) -> [u32x4<S>; 4] {
    let (ac_low, ac_high) = (a.zip_low(c), a.zip_high(c));
    let (bd_low, bd_high) = (b.zip_low(d), b.zip_high(d));
    [
        ac_low.zip_low(bd_low),
        ac_low.zip_high(bd_low),
        ac_high.zip_low(bd_high),
        ac_high.zip_high(bd_high),
    ]
}
