//! The settings of the gateway, its callers, and the limits for clients.

use std::time::Duration;

use super::{storage::Storage, token_key::TokenKey};
use crate::seal::SealKey;
use crate::upload::{Plan, SINGLE_PUT_MAX, StoreKind};

/// The recommended size of a chunk in bytes: large enough that its framing costs little, and as small as the
/// flow-control window of a stream, 256 KiB.
const PREFERRED_CHUNK_SIZE: u64 = 256 * 1024;

/// The settings of a gateway.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The memory budget: the largest number of file bytes in memory, for all streams together.
    pub memory_budget: u64,
    /// The largest number of parts of one upload in flight.
    pub parts_in_flight: usize,
    /// The largest number of parts of all uploads in flight to one store.
    pub parts_in_flight_total: usize,
    /// Whether parts and files are hashed side by side with SIMD, if its self-test passes. Otherwise each is hashed on its own.
    pub simd_md5: bool,
    /// The largest file, in bytes, if it is smaller than what the store accepts.
    pub max_file_size: Option<u64>,
    /// The largest gRPC message, in bytes.
    pub max_message_size: u64,
    /// The largest number of concurrent streams.
    pub max_streams: usize,
    /// The largest number of tags of a new upload.
    pub max_tags: u32,
    /// The largest size of a tag of a new upload, in bytes.
    pub max_tag_size: u32,
    /// The largest number of open uploads, over all replicas. Beyond it nothing is created.
    pub max_open_uploads: u64,
    /// What the edges allow.
    pub edges: EdgeLimits,
    /// What one owner may have of it. Callers without a tenant, as without authentication, may have everything.
    pub per_owner: OwnerLimits,
    /// How long a stream may be silent.
    pub idle_timeout: Duration,
    /// After which time ± 10 % a stream ends between two parts, so that its sender resumes over a new connection. None: never.
    pub stream_age: Option<Duration>,
    /// The minimum rate of a sender in bytes per second, while the gateway waits for it. 0: no minimum.
    pub min_rate: u64,
    /// The waiting time over which the rate is averaged.
    pub min_rate_window: Duration,
    /// How long a call waits in total for a blob store or state store that is unavailable.
    pub store_retry_timeout: Duration,
    /// How long a commit lease lasts. The committer stops 30 s before its end, or a third of the lease if that is
    /// shorter, so that two replicas whose clocks differ by less than that never commit at the same time. Must be
    /// longer than the slowest response of the store, including retries.
    pub commit_lease: Duration,
    /// How long after a negative answer of the store a second observation counts.
    pub store_settle: Duration,
    /// How long an OPEN upload is kept after its last change.
    pub upload_expiry: Duration,
    /// The greatest age of an OPEN upload, however often it changes.
    pub upload_max_age: Duration,
    /// How long the record of a COMPLETE upload is kept after that. `None`: as long as its file.
    pub keep_complete: Option<Duration>,
    /// How much memory the state store may use before records of COMPLETE uploads are removed whose files carry them, in bytes.
    /// `None`: half of what it can use.
    pub max_record_memory: Option<u64>,
    /// How long the record of an ABORTED upload is kept after the store was cleared of it.
    pub keep_aborted: Duration,
    /// The keys that seal what the stores keep of records. Empty: nothing.
    pub record_keys: Vec<SealKey>,
    /// How many records per second are searched for in the stores.
    pub rebuilds_per_second: u32,
    /// How long a deleted file is remembered, so that a repeated delete succeeds.
    pub tombstone: Duration,
    /// The keys of resume tokens: the first one seals, all of them open. If empty, a key is derived from the secret of
    /// the deployment, which is lost if the state store is flushed while no gateway runs.
    pub token_keys: Vec<TokenKey>,
}

/// The largest numbers at a time that the edges allow in this process. The gateway only reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EdgeLimits {
    /// The connections of each listener.
    pub connections: u32,
    /// The calls on one gRPC connection.
    pub calls_per_connection: u32,
    /// The calls over gRPC and HTTP.
    pub calls: u32,
    /// The lists of uploads or parts.
    pub lists: u32,
    /// The calls that watch an upload.
    pub watches: u32,
    /// The downloads through the gateway.
    pub downloads: u32,
}

/// The largest numbers at a time that one owner may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerLimits {
    /// The open uploads, over all replicas.
    pub open_uploads: u64,
    /// The streams in this process.
    pub streams: u32,
    /// The lists of uploads or parts in this process.
    pub lists: u32,
    /// The calls in this process that watch an upload.
    pub watches: u32,
    /// The downloads through this process.
    pub downloads: u32,
}

/// The limits that clients must respect for one storage, beside those in [`Settings`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The id of the storage.
    pub storage_id: String,
    /// The kind of the store.
    pub store_kind: StoreKind,
    /// The largest file with a declared size, in bytes.
    pub max_file_size: u64,
    /// The largest file of unknown size, in bytes.
    pub max_unknown_file_size: u64,
    /// The smallest part size, in bytes.
    pub part_size: u64,
    /// The largest file that is stored with a single put, in bytes.
    pub max_single_put_size: u64,
    /// The recommended size of a chunk, in bytes.
    pub preferred_chunk_size: u64,
}

// === impl OwnerLimits ===

impl Default for OwnerLimits {
    /// No limits.
    fn default() -> Self {
        Self {
            open_uploads: u64::MAX,
            streams: u32::MAX,
            lists: u32::MAX,
            watches: u32::MAX,
            downloads: u32::MAX,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// The limits of `storage`.
    pub(super) fn limits(&self, storage: &Storage) -> Limits {
        let unknown = Plan::unknown(storage.part_size, &storage.limits);
        Limits {
            storage_id: storage.id.clone(),
            store_kind: storage.store.kind(),
            max_file_size: storage.bounded(self.bounded(Plan::max_known(&storage.limits))),
            max_unknown_file_size: storage.bounded(self.bounded(unknown.capacity())),
            part_size: storage.part_size,
            max_single_put_size: SINGLE_PUT_MAX,
            preferred_chunk_size: PREFERRED_CHUNK_SIZE,
        }
    }

    /// The smaller of `size` and the largest file, in bytes.
    pub(super) fn bounded(&self, size: u64) -> u64 {
        self.max_file_size.map_or(size, |max| max.min(size))
    }
}
