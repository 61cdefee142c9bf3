//! The 64 steps that a block takes (RFC 1321, section 3.4), for one chain or for several at once.

use std::ops::{BitAnd, BitOr, BitXor, Not};

/// One word of each of some chains.
pub(crate) trait Word:
    Copy + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self>
{
    fn plus(self, other: Self) -> Self;
    fn plus_constant(self, constant: u32) -> Self;
    fn rotated(self, bits: u32) -> Self;
}

/// What each step adds: the integer part of 2^32 × |sin(step + 1)|.
pub(crate) const ADDED: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// By how many bits the four steps of each round rotate, in turn.
const ROTATED: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];

/// Advances the chains of `V` words each by a block. `words` are the 16 words of the blocks.
// Everything is inlined, and nothing is a closure: what is not inlined is compiled without the instructions of the level
// that was chosen.
#[inline(always)]
pub(crate) fn compress<W: Word, const V: usize>(state: &mut [[W; V]; 4], words: &[[W; V]; 16]) {
    let [mut a, mut b, mut c, mut d] = *state;
    macro_rules! steps {
        ($($first:literal $second:literal $third:literal $fourth:literal),*) => { $(
            step::<W, V, $first>(&mut a, (&b, &c, &d), words);
            step::<W, V, $second>(&mut d, (&a, &b, &c), words);
            step::<W, V, $third>(&mut c, (&d, &a, &b), words);
            step::<W, V, $fourth>(&mut b, (&c, &d, &a), words);
        )* };
    }
    steps!(0 1 2 3, 4 5 6 7, 8 9 10 11, 12 13 14 15);
    steps!(16 17 18 19, 20 21 22 23, 24 25 26 27, 28 29 30 31);
    steps!(32 33 34 35, 36 37 38 39, 40 41 42 43, 44 45 46 47);
    steps!(48 49 50 51, 52 53 54 55, 56 57 58 59, 60 61 62 63);
    for v in 0..V {
        state[0][v] = state[0][v].plus(a[v]);
        state[1][v] = state[1][v].plus(b[v]);
        state[2][v] = state[2][v].plus(c[v]);
        state[3][v] = state[3][v].plus(d[v]);
    }
}

#[inline(always)]
fn step<W: Word, const V: usize, const STEP: usize>(
    a: &mut [W; V],
    (b, c, d): (&[W; V], &[W; V], &[W; V]),
    words: &[[W; V]; 16],
) {
    let round = STEP / 16;
    let word = match round {
        0 => STEP,
        1 => 5 * STEP + 1,
        2 => 3 * STEP + 5,
        _ => 7 * STEP,
    } % 16;
    for v in 0..V {
        let sum = a[v].plus(words[word][v]).plus_constant(ADDED[STEP]);
        let mixed = mix(round, sum, (b[v], c[v], d[v]));
        a[v] = mixed.rotated(ROTATED[round][STEP % 4]).plus(b[v]);
    }
}

/// Adds the function of the round. `b` is the result of the step before, so it enters as late as possible.
#[inline(always)]
fn mix<W: Word>(round: usize, sum: W, (b, c, d): (W, W, W)) -> W {
    match round {
        0 => sum.plus(d ^ (b & (c ^ d))),
        // No bit is set in both, so the sum is their union.
        1 => sum.plus(c & !d).plus(b & d),
        2 => sum.plus(b ^ (c ^ d)),
        _ => sum.plus(c ^ (b | !d)),
    }
}
