//! How long records of ended uploads are kept: the table `[records]`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use upload_gateway_core::seal::SealKey;

use super::{
    error::ConfigError,
    keys::{KeyConfig, read_keys},
    table::table,
};
use crate::values::{ByteSize, InvalidKey};

/// The units of a time, the largest first, in seconds.
const UNITS: [(&str, u64); 4] = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];

/// The longest time, in days. A longer one is a typing error, and would overflow timestamps.
const MAX_DAYS: u64 = 100 * 365;

/// What a time looks like.
const EXPECTED: &str = "expected \"forever\", or a time such as \"30d\", \"12h\" or \"90m\"";

/// How long something is kept: `"forever"`, or a number with a unit: `"30d"`, `"12h"`, `"90m"`, `"45s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// For this number of seconds.
    Seconds(u64),
    /// For ever.
    Forever,
}

table! {
    /// How long the records of ended uploads are kept.
    pub struct Records {
        /// How long the record of a COMPLETE upload is kept after that. Without its record a file stays in the store, but is not
        /// found by its upload id. Holds for uploads that become COMPLETE from then on.
        pub keep_complete: Keep = Keep::Forever, in MIN_KEPT..;
        /// How long the record of an ABORTED upload is kept, after the last request that was signed for it has expired. In this
        /// time the sweeper deletes what such a request has put into the store.
        pub keep_aborted: Keep = Keep::Seconds(7 * 24 * 60 * 60), in MIN_KEPT..Keep::Forever;
        /// How much memory Redis may use before the records of the oldest COMPLETE uploads are removed, in a Cluster each node. A
        /// record is removed only if its file carries it, too; the file is then found by its upload id, and not listed. Not set:
        /// half of Redis' `maxmemory`; without that nothing is removed.
        pub max_memory: Option<ByteSize> = None;
        /// The keys that seal what the stores keep of records, so that files survive the loss of the state store. The first one
        /// seals, all of them open: keep a key as long as files whose records it has sealed. Empty: with embedded state, the key in
        /// `records.key` in `data_dir`, which is made; with Redis, nothing is kept in the stores.
        pub key: Vec<KeyConfig> = Vec::new();
    }
}

/// The shortest time: the sweeper must see the record of an ABORTED upload, and callers that of a COMPLETE one.
const MIN_KEPT: Keep = Keep::Seconds(24 * 60 * 60);

/// The least memory for records: an empty Redis uses more than a tenth of it.
const MIN_MEMORY: ByteSize = ByteSize(8 * 1024 * 1024);

// === impl Records ===

impl Records {
    /// The keys as the use cases take them.
    ///
    /// # Errors
    /// The first key that is invalid.
    pub(super) fn record_keys(&self) -> Result<Vec<SealKey>, ConfigError> {
        let keys = read_keys("records.key", &self.key)?.into_iter();
        Ok(keys.map(|(id, key)| SealKey::new(id, &key)).collect())
    }

    /// Checks each key.
    pub(super) fn validate(&self) -> Result<(), InvalidKey> {
        if self.max_memory.is_some_and(|max| max < MIN_MEMORY) {
            let problem = format!("must be at least {MIN_MEMORY}");
            return Err(InvalidKey::new("max_memory", problem));
        }
        self.check_ranges()
    }
}

// === impl Keep ===

impl Keep {
    /// The time; `None`: for ever.
    pub(super) fn duration(self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            Self::Forever => None,
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Seconds(seconds) = self else {
            return formatter.write_str("forever");
        };
        let divides = |(_, unit): &&(&str, u64)| seconds.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().find(divides).unwrap_or(&("s", 1));
        write!(formatter, "{}{name}", seconds / unit)
    }
}

impl FromStr for Keep {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (name, unit) = unit.ok_or(EXPECTED)?;
        let count: u64 = text
            .strip_suffix(name)
            .and_then(|digits| digits.trim().parse().ok())
            .ok_or(EXPECTED)?;
        let seconds = count.checked_mul(*unit);
        let seconds = seconds.filter(|seconds| *seconds <= MAX_DAYS * UNITS[0].1);
        seconds.map(Self::Seconds).ok_or(EXPECTED)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| de::Error::custom(EXPECTED))?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("12h", 43_200),
            ("90m", 5_400),
            ("45s", 45),
        ] {
            let parsed: Keep = text.parse().unwrap();
            assert_eq!(parsed, Keep::Seconds(seconds));
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!("forever".parse(), Ok(Keep::Forever));
        let wrong = [
            "",
            "7",
            "d",
            "-1d",
            "1.5d",
            "1w",
            "1 month",
            "40000d",
            "99999999999999999999s",
        ];
        for text in wrong {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }

    #[test]
    fn records_of_aborted_uploads_outlast_a_sweep() {
        let records = |keep_aborted| Records {
            keep_aborted,
            ..Records::default()
        };
        assert!(records(Keep::Seconds(86_400)).validate().is_ok());
        assert!(records(Keep::Seconds(86_399)).validate().is_err());
        assert!(records(Keep::Forever).validate().is_err());
    }
}
