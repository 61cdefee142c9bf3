//! The configured storages.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    blobs::{BlobStore, Capabilities},
    decorate::Decorated,
    error::{Error, Kind, Reason, Result},
    retry::Retry,
    upload::StoreLimits,
};

/// A configured storage.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Its name in the configuration and in records.
    pub id: String,
    /// The store. In a [`Gateway`](super::Gateway), requests to it are retried.
    pub store: Arc<dyn BlobStore>,
    /// The store without retries: for the health check, which must report what the store answers now, and for the commit,
    /// which retries all of its steps together.
    pub(super) single_try: Arc<dyn BlobStore>,
    /// The beginning of all object keys; may be empty.
    pub prefix: String,
    /// The smallest part size in bytes.
    pub part_size: u64,
    /// What the store accepts and the gateway's memory allows.
    pub limits: StoreLimits,
    /// The extensions that files may have, in lower case and without the dot. Empty: any.
    pub extensions: Vec<String>,
    /// The media types that files may have, in lower case. Empty: any.
    pub mimes: Vec<String>,
    /// One permit for each part that may be in flight. Each storage has its own: a slow or unavailable one delays only its
    /// own senders.
    pub(super) in_flight: Arc<Semaphore>,
}

/// All configured storages, one of them the default.
#[derive(Debug, Clone)]
pub struct Storages {
    all: Vec<Arc<Storage>>,
    default: usize,
}

// === impl Storage ===

impl Storage {
    /// The storage `id` over `store`.
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
            part_size,
            limits,
            extensions: Vec::new(),
            mimes: Vec::new(),
            in_flight: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// Accepts only files with these extensions or of these media types; without any, all files.
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

    /// In what the store differs from others.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

// === impl Storages ===

impl Storages {
    /// These storages; the one named `default` is used for uploads that name none.
    ///
    /// # Errors
    /// `NotFound` if there is no storage of that name.
    pub fn new(all: Vec<Storage>, default: &str) -> Result<Self> {
        let all: Vec<Arc<Storage>> = all.into_iter().map(Arc::new).collect();
        let default = all
            .iter()
            .position(|storage| storage.id == default)
            .ok_or_else(|| not_found(default))?;
        Ok(Self { all, default })
    }

    /// The storage of that name, or the default one for an empty name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &str) -> Result<Arc<Storage>> {
        if id.is_empty() {
            return Ok(Arc::clone(&self.all[self.default]));
        }
        self.iter()
            .find(|storage| storage.id == id)
            .map(Arc::clone)
            .ok_or_else(|| not_found(id))
    }

    /// The same storages over the stores that `replace` returns.
    #[must_use]
    pub fn with_stores(
        mut self,
        replace: impl Fn(Arc<dyn BlobStore>) -> Arc<dyn BlobStore>,
    ) -> Self {
        for storage in &mut self.all {
            let storage = Arc::make_mut(storage);
            storage.store = replace(Arc::clone(&storage.store));
            storage.single_try = Arc::clone(&storage.store);
        }
        self
    }

    /// All storages.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Storage>> {
        self.all.iter()
    }

    /// The same storages as a gateway uses them: requests are retried, parts have at most `part_size` bytes, and at most
    /// `in_flight` of them are in flight to each store.
    pub(super) fn prepared(mut self, retry: &Arc<Retry>, part_size: u64, in_flight: usize) -> Self {
        for storage in &mut self.all {
            let storage = Arc::make_mut(storage);
            let single_try = Arc::clone(&storage.single_try);
            storage.store = Arc::new(Decorated::new(single_try, Arc::clone(retry)));
            storage.limits.max_part_size = storage.limits.max_part_size.min(part_size);
            storage.in_flight = Arc::new(Semaphore::new(in_flight));
        }
        self
    }

    /// The largest part in bytes of any file.
    pub(super) fn largest_part(&self) -> u64 {
        self.iter()
            .map(|storage| storage.limits.max_part_size)
            .max()
            .unwrap_or_default()
    }
}

fn not_found(id: &str) -> Error {
    // The name comes from a request and is returned in a header, so it is cut to the length of an id.
    let id: String = id.chars().take(80).collect();
    Error::new(
        Kind::NotFound,
        Reason::StorageNotFound,
        format!("no storage `{id}`"),
    )
    .with("storage_id", &id)
}
