//! What the gateway is configured with, who calls it, and what a client must respect.

use std::time::Duration;

use super::{storage::Storage, token_key::TokenKey};
use crate::upload::{Owner, Plan, SINGLE_PUT_MAX, StoreKind};

/// The size in bytes of a chunk that costs least: large enough for its framing not to matter, small enough for a stream's
/// window of 256 KiB.
const PREFERRED_CHUNK_SIZE: u64 = 256 * 1024;

/// What the gateway may use and how long it waits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of files in memory, all streams together.
    pub memory_budget: u64,
    /// The most parts of one upload in flight.
    pub parts_in_flight: usize,
    /// The most parts of all uploads in flight to one store.
    pub parts_in_flight_total: usize,
    /// The largest file in bytes, if less than the store accepts.
    pub max_file_size: Option<u64>,
    /// The largest message in bytes.
    pub max_message_size: u64,
    /// The most streams at once.
    pub max_streams: usize,
    /// How long a stream may be silent.
    pub idle_timeout: Duration,
    /// The bytes per second that a sender must reach while the gateway waits for it; 0: any rate.
    pub min_rate: u64,
    /// The waiting time over which that rate is averaged.
    pub min_rate_window: Duration,
    /// How long a call waits in all for a blob store or state store that is unavailable.
    pub store_retry_timeout: Duration,
    /// How long a commit lease lasts. The committer stops 30 s before its end, or a third of it, so that two replicas whose
    /// clocks differ by less never commit at the same time. Longer than the store's slowest answer and its retries.
    pub commit_lease: Duration,
    /// How long an OPEN upload is kept after its last change.
    pub upload_expiry: Duration,
    /// The greatest age of an OPEN upload, however often it changes.
    pub upload_max_age: Duration,
    /// The keys of resume tokens: the first seals, all open. If empty, a key is derived from the deployment's secret, which
    /// is lost with a state store that is flushed while no gateway runs.
    pub token_keys: Vec<TokenKey>,
}

/// The caller of a use case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The owner of the caller's uploads.
    pub owner: Owner,
}

/// What a client must respect, for one storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The storage.
    pub storage_id: String,
    /// Its kind.
    pub store_kind: StoreKind,
    /// The largest file of declared size, in bytes.
    pub max_file_size: u64,
    /// The largest file of unknown size, in bytes.
    pub max_unknown_file_size: u64,
    /// The smallest part size, in bytes.
    pub part_size: u64,
    /// The largest file that is stored by a single put, in bytes.
    pub max_single_put_size: u64,
    /// The largest message, in bytes.
    pub max_message_size: u64,
    /// The chunk size that costs least, in bytes.
    pub preferred_chunk_size: u64,
    /// As [`Settings::idle_timeout`].
    pub idle_timeout: Duration,
    /// As [`Settings::upload_expiry`].
    pub expiry: Duration,
    /// As [`Settings::min_rate`].
    pub min_rate: u64,
    /// As [`Settings::min_rate_window`].
    pub min_rate_window: Duration,
}

// === impl Settings ===

impl Settings {
    /// The limits of `storage`.
    pub(super) fn limits(&self, storage: &Storage) -> Limits {
        let unknown = Plan::unknown(storage.part_size, &storage.limits);
        Limits {
            storage_id: storage.id.clone(),
            store_kind: storage.store.kind(),
            max_file_size: self.bounded(Plan::max_known(&storage.limits)),
            max_unknown_file_size: self.bounded(unknown.capacity()),
            part_size: storage.part_size,
            max_single_put_size: SINGLE_PUT_MAX,
            max_message_size: self.max_message_size,
            preferred_chunk_size: PREFERRED_CHUNK_SIZE,
            idle_timeout: self.idle_timeout,
            expiry: self.upload_expiry,
            min_rate: self.min_rate,
            min_rate_window: self.min_rate_window,
        }
    }

    /// `size` bytes, or the largest file if that is smaller.
    pub(super) fn bounded(&self, size: u64) -> u64 {
        self.max_file_size.map_or(size, |max| max.min(size))
    }
}
