//! The load of a process.

/// How much of its streams and memory a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// The streams that run.
    pub streams: u64,
    /// How many can run.
    pub max_streams: u64,
    /// The messages and parts that wait for memory.
    pub waiting: u64,
    /// The bytes that messages and parts have reserved.
    pub reserved: u64,
    /// How many bytes they can reserve.
    pub budget: u64,
    /// The parts that are hashed or wait for that.
    pub hashing: u64,
}

// === impl Load ===

impl Load {
    /// The fuller of streams and memory, from 0 to 1. It is 1 while something waits for memory.
    pub fn saturation(&self) -> f64 {
        let share = |used: u64, all: u64| match all {
            0 => 0.0,
            all => (used as f64 / all as f64).min(1.0),
        };
        let memory = match self.waiting {
            0 => share(self.reserved, self.budget),
            _ => 1.0,
        };
        memory.max(share(self.streams, self.max_streams))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_is_that_of_the_fullest() {
        let load = |streams, waiting, reserved| Load {
            streams,
            max_streams: 4,
            waiting,
            reserved,
            budget: 100,
            hashing: 0,
        };
        for (load, expected) in [
            (Load::default(), 0.0),
            (load(1, 0, 10), 0.25),
            (load(1, 0, 50), 0.5),
            (load(0, 1, 0), 1.0),
            (load(9, 0, 0), 1.0),
        ] {
            assert!((load.saturation() - expected).abs() < 1e-9, "{load:?}");
        }
    }
}
