//! Reserved bytes, by where they are from.

/// Reserved bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) from_free: u64,
    pub(super) from_reserve: u64,
}

// === impl Amount ===

impl Amount {
    pub(super) fn total(&self) -> u64 {
        self.from_free + self.from_reserve
    }

    /// Adds what was granted.
    pub(super) fn add(&mut self, other: Self) {
        self.from_free += other.from_free;
        self.from_reserve += other.from_reserve;
    }

    /// Takes up to `bytes` of it, first those from the reserve.
    pub(super) fn split(&mut self, bytes: u64) -> Self {
        let from_reserve = self.from_reserve.min(bytes);
        let from_free = self.from_free.min(bytes - from_reserve);
        self.from_reserve -= from_reserve;
        self.from_free -= from_free;
        Self {
            from_free,
            from_reserve,
        }
    }
}
