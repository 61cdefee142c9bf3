//! The configured storages.

mod intake;
mod integrity;
mod limit;
mod part;
mod shortest;
mod turns;

use std::{sync::Arc, time::Duration};

pub use self::integrity::{IntegrityChoice, compares_crc64};
use self::{intake::Intake, integrity::IntegrityProbe, turns::Turns};
pub(super) use self::{
    intake::{HeldPart, UNCOUNTED},
    turns::Turn,
};

use super::{
    caller::Caller,
    record_keys::{Place, RecordKeys},
};
use crate::{
    blobs::{BlobStore, Capabilities, NewObject},
    decorate::Decorated,
    error::{All, Error, Kind, Reason, Result},
    meter::Meter,
    retry::Retry,
    state::StateStore,
    upload::{
        Digests, Encryption, Integrity, Placement, StoreLimits, Upload, UploadId,
        keys::{KeyTemplate, SIDE_OBJECTS, directory},
        object::Expected,
    },
};

/// The longest time for which a file can be kept, in seconds, unless it is kept for ever: a hundred years. Longer times would
/// overflow timestamps.
const MAX_EXPIRE_AFTER: u64 = 100 * 365 * 24 * 60 * 60;

/// A configured storage.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The id in the configuration and in records.
    pub id: String,
    /// The store. In a [`Gateway`](super::Gateway), requests to it are retried.
    pub store: Arc<dyn BlobStore>,
    /// The store without retries. For the health check, which must report what the store answers now, and for the
    /// commit, which retries all of its steps together.
    pub(super) single_try: Arc<dyn BlobStore>,
    /// The prefix of all object keys. May be empty.
    pub prefix: String,
    /// How the keys below the prefix are made.
    pub key: KeyTemplate,
    /// The smallest part size in bytes.
    pub part_size: u64,
    /// The limits of the store, reduced to what the memory budget allows.
    pub limits: StoreLimits,
    /// The file extensions that are accepted, in lower case and without the dot. Empty: all.
    pub extensions: Vec<String>,
    /// The media types that are accepted, in lower case: `image/png`, or `image/*`. Empty: all.
    pub mimes: Vec<String>,
    /// The largest file, in bytes. `None`: what the store allows.
    pub max_file_size: Option<u64>,
    /// How long it keeps files.
    pub expiry: FileExpiry,
    /// How objects are stored whose uploads do not say it.
    pub placement: Placement,
    /// Whether every object must be encrypted as `placement` says. Then an upload cannot ask for another encryption.
    pub requires_encryption: bool,
    /// Which digest the store compares with the bytes that it receives.
    pub integrity: IntegrityChoice,
    /// The tenants whose files it takes. For other tenants it does not exist. Empty: all.
    pub tenants: Vec<String>,
    /// Whether it is the default storage of its tenants, before that of all.
    pub is_default: bool,
    /// One turn per part in flight. Each storage has its own, so that a slow or unavailable storage delays only its own
    /// senders.
    pub(super) turns: Arc<Turns>,
    /// The parts that are in memory.
    pub(super) intake: Arc<Intake>,
    /// Finds out what `integrity` leaves open. `None` outside of a [`Gateway`](super::Gateway).
    probe: Option<Arc<IntegrityProbe>>,
    /// The keys that seal what the store keeps of records.
    pub(super) record_keys: Arc<RecordKeys>,
    /// The retry budget is that of the storage, so that a storage that is unavailable takes none from the others.
    pub(super) retry: Arc<Retry>,
}

/// How long a storage keeps files after their uploads became COMPLETE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileExpiry {
    /// Files whose uploads do not say it, in seconds. `None`: for ever, or for `max`.
    pub default: Option<u64>,
    /// All files, in seconds. `None`: any time.
    pub max: Option<u64>,
}

/// All configured storages.
#[derive(Debug, Clone)]
pub struct Storages {
    all: Vec<Arc<Storage>>,
    /// The default of callers whose tenant has none of its own.
    default: Option<usize>,
}

// === impl Storage ===

impl Storage {
    /// A storage with the id `id` in `store`. Object keys start with `prefix`, and parts have at least `part_size`
    /// bytes.
    pub fn new(
        id: impl Into<String>,
        store: Arc<dyn BlobStore>,
        prefix: impl Into<String>,
        part_size: u64,
    ) -> Self {
        let limits = store.limits();
        Self {
            id: id.into(),
            single_try: Arc::clone(&store),
            store,
            prefix: prefix.into(),
            key: KeyTemplate::default(),
            part_size,
            limits,
            extensions: Vec::new(),
            mimes: Vec::new(),
            max_file_size: None,
            expiry: FileExpiry::default(),
            placement: Placement::default(),
            requires_encryption: false,
            integrity: IntegrityChoice::default(),
            probe: None,
            tenants: Vec::new(),
            is_default: false,
            turns: Turns::new(usize::MAX),
            intake: Arc::default(),
            record_keys: Arc::default(),
            retry: Arc::new(Retry::new(Duration::ZERO)),
        }
    }

    /// Accepts only files with these extensions and media types. An empty list accepts all.
    #[must_use]
    pub fn with_filters(
        self,
        extensions: impl IntoIterator<Item = String>,
        mimes: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            extensions: extensions.into_iter().collect(),
            mimes: mimes.into_iter().collect(),
            ..self
        }
    }

    /// Makes keys by this template.
    #[must_use]
    pub fn with_key(self, key: KeyTemplate) -> Self {
        Self { key, ..self }
    }

    /// Takes files of up to `max` bytes.
    #[must_use]
    pub fn with_max_file_size(self, max: Option<u64>) -> Self {
        Self {
            max_file_size: max,
            ..self
        }
    }

    /// Keeps files for this long.
    #[must_use]
    pub fn with_expiry(self, expiry: FileExpiry) -> Self {
        Self { expiry, ..self }
    }

    /// Stores objects like this, unless their uploads say otherwise. With `requires_encryption`, every object must be encrypted
    /// like this.
    #[must_use]
    pub fn with_placement(self, placement: Placement, requires_encryption: bool) -> Self {
        Self {
            placement,
            requires_encryption,
            ..self
        }
    }

    /// Puts bytes with this digest.
    #[must_use]
    pub fn with_integrity(self, integrity: IntegrityChoice) -> Self {
        Self { integrity, ..self }
    }

    /// Takes files of these tenants only, and those that name no storage if it is their default. An empty list: of all.
    #[must_use]
    pub fn with_tenants(self, tenants: Vec<String>, is_default: bool) -> Self {
        Self {
            tenants,
            is_default,
            ..self
        }
    }

    /// Whether it takes files of this caller.
    fn is_for(&self, caller: &Caller) -> bool {
        self.tenants.is_empty() || self.tenants.contains(&caller.owner.tenant)
    }

    /// The smaller of `size` and the largest file, in bytes.
    pub(super) fn bounded(&self, size: u64) -> u64 {
        self.max_file_size.map_or(size, |max| max.min(size))
    }

    /// How the object of a new upload is stored that asks for `asked`: what it leaves open, the storage decides.
    ///
    /// # Errors
    /// `InvalidArgument` within `field` if both together are invalid, or weaken a demand of the storage;
    /// `FailedPrecondition` with `NotSupported` if the store lacks a feature.
    pub(super) fn placed(&self, field: &str, asked: Placement) -> Result<Placement> {
        let placement = asked.or(&self.placement);
        let encryption = match self.demand() {
            Some(demand) if placement.encryption.as_ref() != Some(demand) => {
                let problem = "the storage demands another encryption; leave it empty";
                Err(Error::invalid("encryption", problem))
            }
            _ => Ok(()),
        };
        let checked = (placement.check(), encryption).all();
        checked.map_err(|error| error.within(field))?;
        placement.check_supported(&self.capabilities().features)?;
        Ok(placement)
    }

    /// How every object must be encrypted, if the storage demands it.
    pub(super) fn demand(&self) -> Option<&Encryption> {
        self.placement
            .encryption
            .as_ref()
            .filter(|_| self.requires_encryption)
    }

    /// The object that a record must have become here.
    pub(super) fn expected<'a>(&'a self, upload: &'a Upload) -> Expected<'a> {
        Expected::of_record(upload).encrypted(self.demand())
    }

    /// Checks that the store answers and that the bucket or container exists. If it refuses the check for a reason that only
    /// an operator can fix, its credentials are renewed and it is checked once more.
    ///
    /// # Errors
    /// As [`BlobStore::check`].
    pub async fn check(&self) -> Result<()> {
        let mut checked = self.single_try.check().await;
        if checked
            .as_ref()
            .is_err_and(|error| error.operator_code().is_some())
        {
            self.single_try.renew_credentials();
            checked = self.single_try.check().await;
        }
        self.retry.note_check(&checked);
        checked
    }

    /// The error code with which the store refuses requests, if only an operator can fix the cause: that of the last
    /// request or check.
    pub fn refusal(&self) -> Option<String> {
        self.retry.refusal()
    }

    /// Whether a part of `size` bytes fits the memory budget and the limits of the store.
    pub(super) fn holds_part(&self, size: u64) -> bool {
        size <= self.limits.max_part_size
    }

    /// The object that an upload becomes, with the digests of the whole file that are known.
    pub(super) fn new_object(&self, upload: &Upload, digests: Digests) -> NewObject {
        let bucket = self.store.bucket();
        NewObject {
            key: upload.object_key.clone(),
            mime: upload.file.file_mime.clone(),
            upload_id: upload.id.clone(),
            size: upload.file.file_size,
            record: self.record_keys.seal_entry(bucket, upload, digests),
            placement: upload.file.placement.clone(),
            md5: digests.md5,
            crc64nvme: digests.crc64nvme,
            integrity: upload.session_integrity(),
        }
    }

    /// Where the text with this key is stored.
    pub(super) fn place<'a>(&'a self, key: &'a str) -> Place<'a> {
        Place {
            bucket: self.store.bucket(),
            key,
        }
    }

    /// The digest for new sessions and single puts. The store is asked before the first one.
    pub(super) async fn integrity(&self) -> Integrity {
        match &self.probe {
            Some(probe) => probe.integrity().await,
            None => Integrity::Md5,
        }
    }

    /// Whether clients can put parts, of which only the MD5 is known, into a session with CRC-64s.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn takes_plain_parts(&self) -> Result<bool> {
        match &self.probe {
            Some(probe) => probe.takes_plain_parts().await,
            None => Ok(true),
        }
    }

    /// The key of the side object of an upload.
    pub(super) fn side_key(&self, id: &UploadId) -> String {
        format!("{}{SIDE_OBJECTS}/{id}", directory(&self.prefix))
    }

    /// Whether the key is that of a side object.
    pub(super) fn is_side_key(&self, key: &str) -> bool {
        let id = key.rsplit('/').next().and_then(|id| id.parse().ok());
        id.is_some_and(|id| self.side_key(&id) == key)
    }

    /// How the store differs from others.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

// === impl FileExpiry ===

impl FileExpiry {
    /// After how many seconds a file is deleted whose upload asks for `expire_after`.
    ///
    /// # Errors
    /// `InvalidArgument` that names `field` if the storage does not keep it for so long, or if it is 0.
    pub(super) fn of(&self, field: &'static str, expire_after: Option<u64>) -> Result<Option<u64>> {
        match (expire_after, self.max) {
            (Some(seconds), _) if !(1..=MAX_EXPIRE_AFTER).contains(&seconds) => {
                let problem = format!("must be from 1 to {MAX_EXPIRE_AFTER} seconds");
                Err(Error::invalid(field, problem))
            }
            (Some(seconds), Some(max)) if seconds > max => {
                let problem = format!("the storage keeps files for at most {max} seconds");
                Err(Error::invalid(field, problem).with("max_expire_after", max))
            }
            (asked, max) => Ok(asked.or(max)),
        }
    }
}

// === impl Storages ===

impl Storages {
    /// These storages. The one with the id `default` is used for uploads that name no storage, unless their tenant has a
    /// default of its own. Empty: there is no default of all tenants.
    ///
    /// # Errors
    /// `NotFound` if no storage has the id `default`.
    pub fn new(all: Vec<Storage>, default: &str) -> Result<Self> {
        let all: Vec<Arc<Storage>> = all.into_iter().map(Arc::new).collect();
        let position = all.iter().position(|storage| storage.id == default);
        if position.is_none() && !default.is_empty() {
            return Err(not_found(default));
        }
        Ok(Self {
            all,
            default: position,
        })
    }

    /// The storage of a record, which has this id.
    ///
    /// # Errors
    /// `NotFound` if there is no such storage.
    pub fn get(&self, id: &str) -> Result<Arc<Storage>> {
        self.iter()
            .find(|storage| storage.id == id)
            .map(Arc::clone)
            .ok_or_else(|| not_found(id))
    }

    /// The storage that a caller asks for by its id. An empty id means the default storage.
    ///
    /// # Errors
    /// `NotFound` if there is no such storage for the caller.
    pub fn for_caller(&self, caller: &Caller, id: &str) -> Result<Arc<Storage>> {
        let mut own = self.iter().filter(|storage| storage.is_for(caller));
        let found = match id {
            "" => own.find(|storage| storage.is_default).or_else(|| {
                Some(&self.all[self.default?]).filter(|storage| storage.is_for(caller))
            }),
            id => own.find(|storage| storage.id == id),
        };
        found.map(Arc::clone).ok_or_else(|| not_found(id))
    }

    /// The storages that a caller can use, its default one first.
    pub fn of_caller(&self, caller: &Caller) -> Vec<Arc<Storage>> {
        let default = self.for_caller(caller, "").ok();
        let is_default = |storage: &&Arc<Storage>| {
            let default = default.as_ref();
            default.is_some_and(|default| default.id == storage.id)
        };
        let others = self.iter().filter(|storage| storage.is_for(caller));
        let others = others.filter(|storage| !is_default(storage)).cloned();
        default.iter().cloned().chain(others).collect()
    }

    /// The same storages with the stores that `replace` returns. For tests and fault injection.
    #[must_use]
    pub fn with_stores(
        mut self,
        replace: impl Fn(&str, Arc<dyn BlobStore>) -> Arc<dyn BlobStore>,
    ) -> Self {
        for storage in &mut self.all {
            let storage = Arc::make_mut(storage);
            storage.store = replace(&storage.id, Arc::clone(&storage.store));
            storage.single_try = Arc::clone(&storage.store);
        }
        self
    }

    /// The ids of all storages.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|storage| storage.id.as_str())
    }

    /// All storages.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Storage>> {
        self.all.iter()
    }

    /// The storages as a gateway uses them: requests are retried for `retry_timeout`, parts have at most `part_size` bytes,
    /// and at most `in_flight` parts are in flight to each store.
    pub(super) fn prepared(
        mut self,
        retry_timeout: Duration,
        part_size: u64,
        in_flight: usize,
        (meter, notes): (&Arc<dyn Meter>, &Arc<dyn StateStore>),
        record_keys: &Arc<RecordKeys>,
    ) -> Self {
        for storage in &mut self.all {
            let storage = Arc::make_mut(storage);
            let single_try = Arc::clone(&storage.single_try);
            let (store, id) = (Arc::clone(&single_try), storage.id.clone());
            let retry = Retry::of_store(store, id, retry_timeout);
            storage.retry = Arc::new(retry.measured(Arc::clone(meter)));
            storage.store = Arc::new(Decorated::new(single_try, Arc::clone(&storage.retry)));
            storage.limits.max_part_size = storage.limits.max_part_size.min(part_size);
            storage.turns = Turns::new(in_flight);
            storage.intake = Arc::default();
            storage.record_keys = Arc::clone(record_keys);
            storage.probe = Some(Arc::new(IntegrityProbe::new(
                storage,
                Arc::clone(notes) as _,
            )));
        }
        self
    }

    /// The largest part that any storage allows, in bytes.
    pub(super) fn largest_part(&self) -> u64 {
        self.iter()
            .map(|storage| storage.limits.max_part_size)
            .max()
            .unwrap_or_default()
    }
}

fn not_found(id: &str) -> Error {
    // The id comes from a request and is returned in a header, so it is cut to the length of an id.
    let id: String = id.chars().take(80).collect();
    Error::new(
        Kind::NotFound,
        Reason::StorageNotFound,
        format!("no storage `{id}`"),
    )
    .with("storage_id", &id)
}
