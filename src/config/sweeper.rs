//! The sweeper: the table `[sweeper]`.

use super::table::table;
use crate::values::InvalidKey;

table! {
    /// The sweeper, which expires uploads and deletes what is orphaned in the stores. One replica sweeps at a time.
    pub struct Sweeper {
        /// Whether this replica sweeps.
        pub enabled: bool = true;
        /// The time between two sweeps of all replicas together, in seconds. What is orphaned costs money: it should not
        /// stay for longer than a day.
        pub interval_seconds: u64 = 5 * 60, in 1..=24 * 60 * 60;
        /// How many uploads and sessions are processed per second at most.
        pub operations_per_second: u32 = 20, in 1..;
    }
}

// === impl Sweeper ===

impl Sweeper {
    /// The time between two sweeps, in seconds; 0 if this replica does not sweep.
    pub(crate) fn interval_or_zero(&self) -> u64 {
        match self.enabled {
            true => self.interval_seconds,
            false => 0,
        }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidKey> {
        self.check_ranges()
    }
}
