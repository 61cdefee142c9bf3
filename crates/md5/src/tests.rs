//! Every way of advancing chains, at every level that this machine has, against `md-5`.

use fearless_simd::Level;
use proptest::{collection::vec, prelude::*};

use super::*;

/// The number of blocks of the longest input: more than are staged at once, and not a multiple of it.
const LONGEST: usize = 11;

type Advance<'a> = &'a dyn Fn(&mut [Words], &[&[Block]]);

fn levels() -> Vec<Level> {
    let best = Level::new();
    #[cfg(target_arch = "x86_64")]
    let all = [
        best.as_sse2().map(Level::Sse2),
        best.as_sse4_2().map(Level::Sse4_2),
        best.as_avx2().map(Level::Avx2),
        best.as_avx512().map(Level::Avx512),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let all = [Some(best)];
    all.into_iter().flatten().collect()
}

fn expected(chains: &[Words], inputs: &[&[Block]]) -> Vec<Words> {
    let mut chains = chains.to_vec();
    for (chain, input) in chains.iter_mut().zip(inputs) {
        md5::block_api::compress(chain, input);
    }
    chains
}

/// Advances the chains in two steps: states are saved and continued at `cut`.
fn check(chains: &[Words], blocks: &[Vec<Block>], cut: usize, advance: Advance<'_>) {
    let inputs: Vec<&[Block]> = blocks.iter().map(Vec::as_slice).collect();
    let (before, after): (Vec<_>, Vec<_>) = inputs.iter().map(|input| input.split_at(cut)).unzip();
    let mut found = chains.to_vec();
    advance(&mut found, &before);
    advance(&mut found, &after);
    assert_eq!(found, expected(chains, &inputs), "cut at {cut}");
}

#[test]
fn the_constants_are_those_of_the_definition() {
    for (step, added) in (1_u32..).zip(compress::ADDED) {
        let value = f64::from(step).sin().abs() * 2_f64.powi(32);
        assert_eq!(value.floor(), f64::from(added), "step {step}");
    }
}

#[test]
fn a_message_has_the_digest_of_the_definition() {
    // "abc", padded (RFC 1321, section A.5).
    let mut block = [0; 64];
    block[..4].copy_from_slice(b"abc\x80");
    block[56] = 24;
    let start = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let digest = [0x9850_0190, 0xb04f_d23c, 0x7d3f_96d6, 0x727f_e128];
    for level in levels() {
        let engine = Engine(level);
        for count in 1..=engine.lanes() {
            let mut chains = vec![start; count];
            engine.advance(&mut chains, &vec![&[block][..]; count]);
            assert_eq!(chains, vec![digest; count], "{engine:?}");
        }
    }
}

#[test]
fn a_level_has_two_vectors_of_lanes() {
    for level in levels() {
        assert!([8, 16, 32].contains(&Engine(level).lanes()), "{level:?}");
    }
    assert!(Engine::detect().is_some_and(|engine| levels().len() * engine.lanes() >= 8));
}

#[test]
#[should_panic(expected = "inputs of different lengths")]
fn inputs_of_different_lengths_are_refused() {
    let engine = Engine(levels()[0]);
    engine.advance(&mut [[0; 4]; 2], &[&[[0; 64]], &[]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn each_chain_advances_by_its_own_input(
        chains in vec(any::<Words>(), 1..=32),
        len in 0..=LONGEST,
        cut: prop::sample::Index,
        seed: [u8; 64],
    ) {
        // Other blocks for each chain, and different ones after another.
        let block = |chain: usize, at: usize| seed.map(|byte| {
            let mixed = usize::from(byte).wrapping_mul(2 * chain + 1) ^ (at * 37 + chain);
            mixed.to_le_bytes()[0]
        });
        let blocks: Vec<Vec<Block>> = (0..chains.len())
            .map(|chain| (0..len).map(|at| block(chain, at)).collect())
            .collect();
        let cut = cut.index(len + 1);
        for level in levels() {
            let engine = Engine(level);
            let lanes = chains.len().min(engine.lanes());
            let (chains, blocks) = (&chains[..lanes], &blocks[..lanes]);
            check(chains, blocks, cut, &|chains, inputs| engine.advance(chains, inputs));
            check(chains, blocks, cut, &|chains, inputs| lanes::advance(level, chains, inputs));
        }
        let few = chains.len().min(3);
        check(&chains[..few], &blocks[..few], cut, &interleaved::advance::<3>);
        let few = chains.len().min(4);
        check(&chains[..few], &blocks[..few], cut, &interleaved::advance::<4>);
    }
}
