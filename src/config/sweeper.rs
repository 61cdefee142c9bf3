//! How uploads and sessions that were left behind are swept up.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The sweeper, which gives up expired uploads and ends what was left behind. One replica sweeps at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sweeper {
    /// Whether this replica sweeps.
    pub enabled: bool,
    /// How often, all replicas together, in seconds.
    pub interval_seconds: u64,
    /// How many uploads and sessions are worked on in a second at most.
    pub operations_per_second: u32,
}

// === impl Sweeper ===

impl Default for Sweeper {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_seconds: 5 * 60,
            operations_per_second: 20,
        }
    }
}

impl Sweeper {
    /// Leftovers cost money: a day is the longest they should lie unseen.
    const LONGEST_INTERVAL_SECONDS: u64 = 24 * 60 * 60;

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=Self::LONGEST_INTERVAL_SECONDS).contains(&self.interval_seconds) {
            let problem = "must be between 1 second and a day";
            return Err(ConfigError::new("sweeper.interval_seconds", problem));
        }
        if self.operations_per_second == 0 {
            let problem = "must be at least 1";
            return Err(ConfigError::new("sweeper.operations_per_second", problem));
        }
        Ok(())
    }
}
