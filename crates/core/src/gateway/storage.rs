//! The configured storages.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    blobs::BlobStore,
    error::{Error, Kind, Reason, Result},
    upload::StoreLimits,
};

/// A place files go to.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Its name in the configuration and in records.
    pub id: String,
    /// The adapter.
    pub store: Arc<dyn BlobStore>,
    /// Where object keys begin; may be empty.
    pub prefix: String,
    /// The least part size in bytes.
    pub part_size: u64,
    /// What the store takes and the gateway's memory allows.
    pub limits: StoreLimits,
    /// The extensions that files may have, in lower case and without the dot. Empty: any.
    pub extensions: Vec<String>,
    /// The media types that files may be of, in lower case. Empty: any.
    pub mimes: Vec<String>,
    /// One permit for each part that may be on its way there. Of each storage its own: one that is slow or away holds
    /// nobody up who sends to another.
    pub(super) in_flight: Arc<Semaphore>,
}

/// All of them, one the default.
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
            store,
            prefix: prefix.into(),
            part_size,
            limits,
            extensions: Vec::new(),
            mimes: Vec::new(),
            in_flight: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// Takes files with these extensions and of these media types only; with none of either, any.
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
}

// === impl Storages ===

impl Storages {
    /// The storages, of which the one named `default` serves those who name none.
    ///
    /// # Errors
    /// `NotFound` when there is no storage of that name.
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

    /// The same storages over other stores: what `replace` makes of each.
    #[must_use]
    pub fn with_stores(
        mut self,
        replace: impl Fn(Arc<dyn BlobStore>) -> Arc<dyn BlobStore>,
    ) -> Self {
        for storage in &mut self.all {
            let storage = Arc::make_mut(storage);
            storage.store = replace(Arc::clone(&storage.store));
        }
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Storage>> {
        self.all.iter()
    }

    /// Bounds every storage's parts to `size` bytes, and to `in_flight` on their way at once.
    pub(super) fn with_parts(mut self, size: u64, in_flight: usize) -> Self {
        for storage in &mut self.all {
            let storage = Arc::make_mut(storage);
            storage.limits.max_part_size = storage.limits.max_part_size.min(size);
            storage.in_flight = Arc::new(Semaphore::new(in_flight));
        }
        self
    }

    /// The largest part in bytes that any file may be cut into.
    pub(super) fn largest_part(&self) -> u64 {
        self.iter()
            .map(|storage| storage.limits.max_part_size)
            .max()
            .unwrap_or_default()
    }
}

fn not_found(id: &str) -> Error {
    // It comes from outside and goes back in a header: as much as any id may have is enough.
    let id: String = id.chars().take(80).collect();
    Error::new(
        Kind::NotFound,
        Reason::StorageNotFound,
        format!("no storage `{id}`"),
    )
    .with("storage_id", &id)
}
