//! The engine that advances MD5s side by side, tested before its first use.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use upload_gateway_md5::{Block, Words};

use super::chain::Chain;
use crate::upload::{Md5, RunningMd5};

/// The most blocks of each chain that are hashed before others may join: 64 KiB, which take 0.2 ms.
const SLICE: usize = 1024;

/// The lengths in bytes that the self-test hashes: around 64, the size of an MD5 block, and 56, from which on the padding
/// takes another block; empty and short input; and several blocks.
const TESTED_LENGTHS: [usize; 8] = [0, 1, 55, 56, 63, 64, 65, 1000];

/// Advances each chain by its input of whole blocks.
type Advance = dyn Fn(&mut [Words], &[&[Block]]) + Send + Sync;

#[derive(Clone)]
pub(super) struct Engine {
    lanes: usize,
    advance: Arc<Advance>,
}

// === impl Engine ===

impl Engine {
    /// The engine for this machine. `None`: it has none, or fails the self-test, which is logged as an error.
    pub(super) fn detect() -> Option<Self> {
        let engine = upload_gateway_md5::Engine::detect()?;
        let advance = move |chains: &mut [Words], inputs: &[&[Block]]| {
            engine.advance(chains, inputs);
        };
        Self::tested(engine.lanes(), advance)
    }

    fn tested(
        lanes: usize,
        advance: impl Fn(&mut [Words], &[&[Block]]) + Send + Sync + 'static,
    ) -> Option<Self> {
        let advance = Arc::new(advance);
        let engine = Self { lanes, advance };
        if !engine.is_correct() {
            tracing::error!(
                "MD5 in SIMD lanes is wrong on this machine; digests are computed one by one"
            );
            return None;
        }
        Some(engine)
    }

    /// The number of chains that are advanced together at most.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Advances all chains by the same number of blocks: those of the shortest one, or a slice.
    pub(super) fn step<'a>(&self, chains: impl Iterator<Item = &'a mut Chain>) {
        let chains: Vec<&mut Chain> = chains.collect();
        let shortest = chains.iter().map(|chain| chain.blocks().len()).min();
        let blocks = shortest.unwrap_or(0).min(SLICE);
        let inputs: Vec<&[Block]> = chains
            .iter()
            .map(|chain| &chain.blocks()[..blocks])
            .collect();
        let mut words: Vec<Words> = chains.iter().map(|chain| chain.words()).collect();
        (self.advance)(&mut words, &inputs);
        for (chain, words) in chains.into_iter().zip(words) {
            chain.advance(words, blocks);
        }
    }

    /// Whether the engine agrees with `md-5` about any number of chains, with inputs of equal and of different lengths,
    /// and from states within a block.
    fn is_correct(&self) -> bool {
        let longest = TESTED_LENGTHS.iter().max().unwrap_or(&0) + 2 * self.lanes;
        let bytes: Bytes = (0..longest)
            .map(|at| (at * at / 7).to_le_bytes()[0])
            .collect();
        let is_correct_for = |lengths: &[usize]| {
            // Inputs start at different bytes, so that swapped lanes are noticed.
            let of_lane = |(lane, length): (usize, &usize)| bytes.slice(lane..2 * lane + length);
            let inputs = || lengths.iter().enumerate().map(of_lane);
            let expected: Vec<Md5> = inputs().map(|input| Md5::of(&input)).collect();
            self.hash(inputs()) == expected
        };
        (1..=self.lanes).all(|size| {
            let mixed: Vec<usize> = (0..size)
                .map(|lane| TESTED_LENGTHS[lane * TESTED_LENGTHS.len() / size])
                .collect();
            let mut equal = TESTED_LENGTHS.iter().map(|&length| vec![length; size]);
            is_correct_for(&mixed) && equal.all(|lengths| is_correct_for(&lengths))
        })
    }

    /// The MD5s of inputs. The first bytes of each, another number for each, are hashed before.
    fn hash(&self, inputs: impl Iterator<Item = Bytes>) -> Vec<Md5> {
        let begun = |(lane, mut input): (usize, Bytes)| {
            let mut digest = RunningMd5::default();
            digest.update(&input.split_to(lane));
            Chain::new(digest, input)
        };
        let mut chains: Vec<Chain> = inputs.enumerate().map(begun).collect();
        while chains.iter().any(|chain| !chain.is_ended()) {
            self.step(chains.iter_mut().filter(|chain| !chain.is_ended()));
        }
        let digests = chains.into_iter().map(|chain| chain.finish().finish());
        digests.collect()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Engine({} lanes)", self.lanes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    type Broken = fn(&mut [Words], &[&[Block]]);

    fn sound(chains: &mut [Words], inputs: &[&[Block]]) {
        let engine = upload_gateway_md5::Engine::detect().unwrap();
        for (chains, inputs) in chains.chunks_mut(8).zip(inputs.chunks(8)) {
            engine.advance(chains, inputs);
        }
    }

    #[test]
    fn the_engine_of_this_machine_passes_the_self_test() {
        assert!(Engine::detect().is_some());
        assert!(Engine::tested(16, sound).is_some());
    }

    #[test]
    fn an_engine_that_fails_the_self_test_is_not_used() {
        let broken: [Broken; 4] = [
            // Wrong in the last lane of full batches only.
            |chains, inputs| {
                sound(chains, inputs);
                if chains.len() == 16 {
                    chains[15] = [0; 4];
                }
            },
            // Wrong for one number of blocks only.
            |chains, inputs| {
                sound(chains, inputs);
                if inputs[0].len() == 15 {
                    chains[0][3] ^= 1;
                }
            },
            // In the wrong order.
            |chains, inputs| {
                sound(chains, inputs);
                chains.reverse();
            },
            // Without the state that was saved.
            |chains, inputs| {
                let start = RunningMd5::default().words();
                chains.fill(start);
                sound(chains, inputs);
            },
        ];
        for advance in broken {
            assert!(Engine::tested(16, advance).is_none());
        }
    }

    #[test]
    fn the_self_test_advances_any_number_of_chains() {
        static SIZES: AtomicUsize = AtomicUsize::new(0);
        let advance = |chains: &mut [Words], inputs: &[&[Block]]| {
            SIZES.fetch_or(1 << chains.len(), Ordering::Relaxed);
            sound(chains, inputs);
        };
        assert!(Engine::tested(16, advance).is_some());
        let all_sizes: usize = (1..=16).map(|size| 1 << size).sum();
        assert_eq!(SIZES.load(Ordering::Relaxed), all_sizes);
    }
}
