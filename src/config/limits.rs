//! What the process uses and accepts at most: the table `[limits]`.

use std::{
    ops::{RangeFrom, RangeInclusive},
    time::Duration,
};

use upload_gateway_core::{
    gateway::{EdgeLimits, OwnerLimits, Settings},
    upload::{MIB, PART_SIZE},
};

use super::{records::Records, table::table};
use crate::values::{ByteSize, InvalidKey};

/// At least one.
const POSITIVE: RangeFrom<u32> = 1..;

/// Up to a year. A longer time is a typing error, and would overflow timestamps.
const SECONDS: RangeInclusive<u64> = 1..=365 * 24 * 60 * 60;

/// Azure deletes uncommitted blocks after a week, R2 aborts multipart uploads, and no signature is valid for longer.
const STORE_RETENTION_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The largest window of HTTP/2, in bytes (RFC 9113, section 6.9.1).
const MAX_WINDOW: u64 = (1 << 31) - 1;

/// The memory of one call beside its window, in bytes.
const CALL_MEMORY: u64 = 16 * 1024;

/// The memory of the bodies of HTTP requests, in bytes.
const HTTP_MEMORY: u64 = 64 * MIB;

/// The largest share of the container's memory for file bytes that is taken without being asked for: more buys nothing.
const MAX_DERIVED_BUDGET: u64 = 1024 * MIB;

/// The fewest calls at a time that are derived from the container's memory. With less memory the gateway does not start.
const MIN_DERIVED_CALLS: u32 = 64;

/// The memory of everything else, in bytes: code, connections, caches, the requests of unary calls.
const PROCESS_MEMORY: u64 = 128 * MIB;

table! {
    /// What the process uses and accepts at most.
    pub struct Limits {
        /// The memory for file bytes of all streams together. Every store accepts parts of 5 MiB, and a part is at most a
        /// quarter of this budget.
        pub memory_budget: ByteSize = ByteSize(256 * MIB), in ByteSize(4 * PART_SIZE)..;
        /// The largest gRPC message. It needs room for a chunk of the preferred size, 256 KiB, and its frame.
        pub max_message_size: ByteSize = ByteSize(4 * MIB), in ByteSize(512 * 1024)..=ByteSize(64 * MIB);
        /// The largest file. Not set: what the store and the memory budget allow.
        pub max_file_size: Option<ByteSize> = None;
        /// How many parts of one upload are in flight to the store at a time, at most.
        pub parts_in_flight: u32 = 8, in POSITIVE;
        /// How many parts of all uploads are in flight to one store at a time, at most: fewer while the store is slow or
        /// throttles.
        pub parts_in_flight_total: u32 = 16, in POSITIVE;
        /// Whether the MD5s of several parts and files are computed side by side with SIMD. Otherwise `md-5` computes each.
        pub simd_md5: bool = true;
        /// How many connections each listener has at a time. One more replaces one without a running call.
        pub max_connections: u32 = 4096, in POSITIVE;
        /// How many calls run at a time, over all connections and both listeners. At the limit, calls whose clients have not
        /// sent their requests end for others.
        pub max_calls: u32 = 2048, in POSITIVE;
        /// How many downloads through the gateway run at a time. At the limit, one that is not read ends for another.
        pub max_downloads: u32 = 256, in POSITIVE;
        /// How many streams run at a time, over all connections.
        pub max_streams: u32 = 1024, in POSITIVE;
        /// How many streams run at a time on one connection.
        pub max_concurrent_streams: u32 = 1024, in POSITIVE;
        /// How many tags an upload can have.
        pub max_tags: u32 = 16, in 0..=64;
        /// The largest tag, in bytes.
        pub max_tag_size: u32 = 64, in 1..=255;
        /// How many uploads are open at a time, over all replicas. In Redis a new one takes 3.2 kB, with the longest names and
        /// tags 7 kB: 100,000 take 320 to 700 MB.
        pub max_open_uploads: u64 = 100_000, in 1..;
        /// How many lists of uploads or parts run at a time. A list runs until its caller has read it.
        pub max_lists: u32 = 8, in POSITIVE;
        /// How many calls follow an upload at a time.
        pub max_watches: u32 = 1024, in POSITIVE;
        /// What one owner has of it at most, with authentication.
        pub per_owner: PerOwner = PerOwner::default();
        /// The HTTP/2 window of one stream; the window of a connection is `max_concurrent_streams` times as large. The
        /// smallest value is HTTP/2's initial window (RFC 9113, section 6.9.2).
        pub stream_window: ByteSize = ByteSize(256 * 1024), in ByteSize(65_535)..=ByteSize(64 * MIB);
        /// How long a stream may send nothing, in seconds.
        pub idle_timeout_seconds: u64 = 60, in SECONDS;
        /// After how many seconds, ± 10 %, a stream ends between two parts, so that its sender resumes over a new connection,
        /// which can lead to another replica. 0: never.
        pub stream_age_seconds: u64 = 0, in 0..=365 * 24 * 60 * 60;
        /// The lowest average rate of a sender while the gateway waits for it, in bytes per second. 0: any rate.
        pub min_rate: ByteSize = ByteSize(1024);
        /// The waiting time over which `min_rate` is averaged, in seconds.
        pub min_rate_seconds: u64 = 300, in SECONDS;
        /// How long calls to an unavailable store or Redis are retried, in seconds.
        pub store_retry_timeout_seconds: u64 = 30, in SECONDS;
        /// How long a commit lease is valid, in seconds: after it another gateway may commit.
        pub commit_lease_seconds: u64 = 90, in SECONDS;
        /// How long after a negative answer of a store a second one is believed, in seconds: nothing is deleted, aborted or
        /// rejected before.
        pub store_settle_seconds: u64 = 30, in SECONDS;
        /// How long an open upload is kept after its last change, in seconds.
        pub upload_expiry_seconds: u64 = 24 * 60 * 60, in SECONDS;
        /// The maximum age of an open upload, in seconds, even if it changes. It must be less than 7 days.
        pub upload_max_age_seconds: u64 = 6 * 24 * 60 * 60, in SECONDS;
        /// How long a deleted file is remembered, in seconds: so long a repeated delete succeeds.
        pub tombstone_seconds: u64 = 60 * 60, in SECONDS;
        /// How many records per second are searched for in the stores, because the state store does not have them.
        pub rebuilds_per_second: u32 = 10, in POSITIVE;
        /// How long running streams may continue to the end of a part after a shutdown begins, in seconds. The final
        /// responses have 5 seconds more.
        pub drain_seconds: u64 = 20, in SECONDS;
    }
}

table! {
    /// What one owner has at most. Three quarters of everything, so that the others always find room.
    pub struct PerOwner {
        /// How many uploads are open at a time, over all replicas.
        pub max_open_uploads: u64 = 75_000, in 1..;
        /// How many streams run at a time.
        pub max_streams: u32 = 768, in POSITIVE;
        /// How many lists of uploads or parts run at a time.
        pub max_lists: u32 = 6, in POSITIVE;
        /// How many calls follow an upload at a time.
        pub max_watches: u32 = 768, in POSITIVE;
        /// How many downloads through the gateway run at a time.
        pub max_downloads: u32 = 192, in POSITIVE;
    }
}

// === impl PerOwner ===

impl PerOwner {
    fn limits(&self) -> OwnerLimits {
        OwnerLimits {
            open_uploads: self.max_open_uploads,
            streams: self.max_streams,
            lists: self.max_lists,
            watches: self.max_watches,
            downloads: self.max_downloads,
        }
    }

    /// Checks each key.
    pub(super) fn validate(&self) -> Result<(), InvalidKey> {
        self.check_ranges()
    }
}

// === impl Limits ===

impl Limits {
    /// What the use cases need of the limits, without keys.
    pub(super) fn settings(&self, records: &Records) -> Settings {
        Settings {
            memory_budget: self.memory_budget.0,
            parts_in_flight: self.parts_in_flight as usize,
            parts_in_flight_total: self.parts_in_flight_total as usize,
            simd_md5: self.simd_md5,
            max_file_size: self.max_file_size.map(|size| size.0),
            max_message_size: self.max_message_size.0,
            max_streams: self.max_streams as usize,
            max_tags: self.max_tags,
            max_tag_size: self.max_tag_size,
            max_open_uploads: self.max_open_uploads,
            edges: EdgeLimits {
                connections: self.max_connections,
                calls_per_connection: self.max_concurrent_streams,
                calls: self.max_calls,
                lists: self.max_lists,
                watches: self.max_watches,
                downloads: self.max_downloads,
            },
            per_owner: self.per_owner.limits(),
            idle_timeout: Duration::from_secs(self.idle_timeout_seconds),
            stream_age: (self.stream_age_seconds > 0)
                .then(|| Duration::from_secs(self.stream_age_seconds)),
            min_rate: self.min_rate.0,
            min_rate_window: Duration::from_secs(self.min_rate_seconds),
            store_retry_timeout: Duration::from_secs(self.store_retry_timeout_seconds),
            commit_lease: Duration::from_secs(self.commit_lease_seconds),
            store_settle: Duration::from_secs(self.store_settle_seconds),
            upload_expiry: Duration::from_secs(self.upload_expiry_seconds),
            upload_max_age: Duration::from_secs(self.upload_max_age_seconds),
            keep_complete: records.keep_complete.duration(),
            max_record_memory: records.max_memory.map(|max| max.0),
            keep_aborted: records.keep_aborted.duration().unwrap_or(Duration::MAX),
            tombstone: Duration::from_secs(self.tombstone_seconds),
            rebuilds_per_second: self.rebuilds_per_second,
            token_keys: Vec::new(),
            record_keys: Vec::new(),
        }
    }

    /// Fits the limits that are not set into `memory` bytes: `memory_budget`, `max_calls` and `max_streams`. With more memory
    /// than the defaults need, only the budget grows.
    ///
    /// # Errors
    /// All limits together need more than `memory`.
    pub(super) fn fit(
        &mut self,
        memory: u64,
        is_set: impl Fn(&str) -> bool,
    ) -> Result<(), InvalidKey> {
        let defaults = Self::default();
        let rest = memory.saturating_sub(HTTP_MEMORY + PROCESS_MEMORY);
        if !is_set("memory_budget") {
            let left = match is_set("max_calls") {
                true => rest.saturating_sub(self.calls_memory()),
                // The share that it has of the defaults.
                false => {
                    let all = defaults.memory_budget.0 + defaults.calls_memory();
                    rest / all.div_ceil(MIB) * (defaults.memory_budget.0 / MIB)
                }
            };
            let whole = left / MIB * MIB;
            self.memory_budget = ByteSize(whole.clamp(4 * PART_SIZE, MAX_DERIVED_BUDGET));
        }
        if !is_set("max_calls") {
            let most = rest.saturating_sub(self.memory_budget.0) / self.call_memory();
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            self.max_calls = most.clamp(MIN_DERIVED_CALLS, defaults.max_calls);
        }
        if !is_set("max_streams") {
            self.max_streams = (self.max_calls / 2).clamp(1, defaults.max_streams);
        }
        if !is_set("per_owner") {
            // Three quarters, as the defaults have it.
            let own = &mut self.per_owner;
            own.max_streams = own.max_streams.min(self.max_streams.div_ceil(4) * 3);
        }
        if self.memory() <= memory {
            return Ok(());
        }
        let problem = format!(
            "{}, which is more than the {} MiB of the container",
            self.memory_line(),
            memory / MIB
        );
        Err(InvalidKey::new("memory_budget", problem))
    }

    /// The memory that clients can make the process use, for people: `memory at most N MiB (…)`.
    pub(crate) fn memory_line(&self) -> String {
        format!(
            "memory at most {} MiB (memory_budget {} MiB, {} calls of {} KiB, HTTP {} MiB, the rest {} MiB)",
            self.memory() / MIB,
            self.memory_budget.0 / MIB,
            self.max_calls,
            self.call_memory() / 1024,
            HTTP_MEMORY / MIB,
            PROCESS_MEMORY / MIB,
        )
    }

    /// The memory that clients can make the process use, in bytes.
    fn memory(&self) -> u64 {
        let all = [
            self.memory_budget.0,
            self.calls_memory(),
            HTTP_MEMORY,
            PROCESS_MEMORY,
        ];
        all.into_iter().fold(0, u64::saturating_add)
    }

    fn calls_memory(&self) -> u64 {
        u64::from(self.max_calls).saturating_mul(self.call_memory())
    }

    fn call_memory(&self) -> u64 {
        self.stream_window.0 + CALL_MEMORY
    }

    /// Checks each key, and the keys that depend on each other.
    pub(super) fn validate(&self) -> Result<(), InvalidKey> {
        self.check_ranges()?;
        if self.commit_lease_seconds <= self.store_retry_timeout_seconds {
            return Err(InvalidKey::new(
                "commit_lease_seconds",
                "must be longer than store_retry_timeout_seconds: a commit retries for that time",
            ));
        }
        if self.upload_max_age_seconds >= STORE_RETENTION_SECONDS {
            return Err(InvalidKey::new(
                "upload_max_age_seconds",
                "must be less than 7 days: then stores delete parts and signatures expire",
            ));
        }
        if self.stream_window.0 * u64::from(self.max_concurrent_streams) > MAX_WINDOW {
            return Err(InvalidKey::new(
                "stream_window",
                "times max_concurrent_streams must be less than 2GiB, the largest window of a connection",
            ));
        }
        if self.max_file_size == Some(ByteSize(0)) {
            return Err(InvalidKey::new("max_file_size", "must be at least 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(memory: u64) -> Result<Limits, InvalidKey> {
        let mut limits = Limits::default();
        limits.fit(memory * MIB, |_| false).map(|()| limits)
    }

    #[test]
    fn the_limits_fit_into_the_memory_of_the_container() {
        for memory in [256, 512, 1024, 4096, 65_536] {
            let limits = fitted(memory).unwrap();
            assert!(limits.memory() <= memory * MIB, "{memory}: {limits:?}");
            limits.validate().unwrap();
        }
        let limits = fitted(512).unwrap();
        assert_eq!(limits.memory_budget, ByteSize(102 * MIB));
        assert_eq!((limits.max_calls, limits.max_streams), (820, 410));
        assert_eq!(limits.per_owner.max_streams, 309);
    }

    #[test]
    fn more_memory_than_the_defaults_need_only_raises_the_budget() {
        let defaults = Limits::default();
        let limits = fitted(4096).unwrap();
        assert_eq!(limits.memory_budget, ByteSize(MAX_DERIVED_BUDGET));
        assert_eq!(limits.max_calls, defaults.max_calls);
        assert_eq!(limits.max_streams, defaults.max_streams);
        assert_eq!(limits.per_owner, defaults.per_owner);
    }

    #[test]
    fn what_is_set_stays_and_the_rest_follows() {
        let mut limits = Limits {
            memory_budget: ByteSize(64 * MIB),
            ..Limits::default()
        };
        limits.fit(512 * MIB, |key| key == "memory_budget").unwrap();
        assert_eq!(limits.memory_budget, ByteSize(64 * MIB));
        assert_eq!(limits.max_calls, 963);
        let mut limits = Limits {
            max_calls: 100,
            ..Limits::default()
        };
        limits.fit(512 * MIB, |key| key == "max_calls").unwrap();
        assert_eq!((limits.max_calls, limits.max_streams), (100, 50));
        assert_eq!(limits.memory_budget, ByteSize(293 * MIB));
    }

    #[test]
    fn limits_beyond_the_container_are_refused_with_their_sum() {
        let mut limits = Limits::default();
        let error = limits.fit(512 * MIB, |_| true).unwrap_err().to_string();
        assert!(error.contains("memory at most 992 MiB"), "{error}");
        assert!(error.contains("512 MiB of the container"), "{error}");
        let error = fitted(128).unwrap_err().to_string();
        assert!(error.contains("128 MiB of the container"), "{error}");
    }
}
