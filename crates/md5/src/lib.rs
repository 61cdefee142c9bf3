//! Advances MD5 chains of several inputs side by side.
//!
//! A step of MD5 needs the one before, so most of a core has nothing to do while it computes one chain. The steps of
//! other chains are computed meanwhile: of two to four in the registers of the core, of more in the lanes of its
//! vectors. Only whole blocks are taken: the rest of an input, its padding and its length are left to the caller.
//!
//! A crate of its own, so that builds for development can optimise it.

mod compress;
mod interleaved;
mod lanes;

use std::fmt;

use fearless_simd::Level;

/// The state of a chain between two blocks: the words A, B, C and D of RFC 1321, section 3.3.
pub type Words = [u32; 4];

/// What one step of a chain takes.
pub type Block = [u8; 64];

/// Advances chains with the widest vectors of this machine.
#[derive(Clone, Copy)]
pub struct Engine(Level);

// === impl Engine ===

impl Engine {
    /// The engine for this machine. `None`: it has no vectors that are known here.
    pub fn detect() -> Option<Self> {
        let level = Level::new();
        (!level.is_fallback()).then_some(Self(level))
    }

    /// The number of chains that are advanced together at most.
    pub fn lanes(self) -> usize {
        lanes::most(self.0)
    }

    /// Advances each chain by its input. All inputs have the same number of blocks.
    ///
    /// # Panics
    /// The numbers of chains and inputs differ or are above [`Engine::lanes`], or an input has another number of blocks.
    pub fn advance(self, chains: &mut [Words], inputs: &[&[Block]]) {
        assert_eq!(chains.len(), inputs.len(), "one input for each chain");
        assert!(chains.len() <= self.lanes(), "more chains than lanes");
        let [first, rest @ ..] = inputs else {
            return;
        };
        let is_equal = |input: &&[Block]| input.len() == first.len();
        assert!(rest.iter().all(is_equal), "inputs of different lengths");
        match chains {
            [chain] => md5::block_api::compress(chain, first),
            // Two take as long as three do.
            [_, _] | [_, _, _] => interleaved::advance::<3>(chains, inputs),
            // In lanes four take half as long again, because vectors are then mostly empty.
            [_, _, _, _] => interleaved::advance::<4>(chains, inputs),
            _ => lanes::advance(self.0, chains, inputs),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Engine({} lanes)", self.lanes())
    }
}

#[cfg(test)]
mod tests;
