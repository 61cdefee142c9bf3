//! Where a client keeps which upload a file has, so that the same call continues it after any interruption.

mod file;
mod journal;
mod saved;

use std::{fmt, io, sync::Arc, time::SystemTime};

use async_trait::async_trait;

pub use self::file::FileResumeStore;
pub(crate) use self::saved::Saved;
use crate::stamp::Stamp;

/// Keeps which upload a file has. A store is shared by all uploads of a process.
///
/// [`FileResumeStore`] keeps it in a file. A service whose disk is lost with its container implements this over its database.
///
/// # Examples
/// ```
/// use std::{collections::HashMap, io, sync::Mutex};
/// use upload_gateway_client::{ResumeStore, SavedUpload};
///
/// /// Forgets everything when the process ends.
/// #[derive(Default)]
/// struct InMemory(Mutex<HashMap<String, SavedUpload>>);
///
/// #[async_trait::async_trait]
/// impl ResumeStore for InMemory {
///     async fn load(&self, key: &str) -> io::Result<Option<SavedUpload>> {
///         Ok(self.0.lock().unwrap().get(key).cloned())
///     }
///
///     async fn save(&self, key: &str, upload: &SavedUpload) -> io::Result<()> {
///         self.0.lock().unwrap().insert(key.into(), upload.clone());
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait ResumeStore: Send + Sync {
    /// What was saved last under `key`.
    ///
    /// # Errors
    /// The store cannot be read, or another process is sending this file now.
    async fn load(&self, key: &str) -> io::Result<Option<SavedUpload>>;

    /// Called before an upload is created or continued, with what [`ResumeStore::load`] has returned. From then on this fails in
    /// other processes, until this one has saved that the upload is complete, or has ended. By default it does nothing, for
    /// stores that only one process uses.
    ///
    /// # Errors
    /// Another process has begun to send this file, or has sent it, since it was loaded.
    async fn claim(&self, key: &str, loaded: Option<&SavedUpload>) -> io::Result<()> {
        let _ = (key, loaded);
        Ok(())
    }

    /// Keeps `upload` under `key`, in place of what was saved before. After this returned, [`ResumeStore::load`] finds it also
    /// if the process is killed.
    ///
    /// # Errors
    /// The store cannot be written.
    async fn save(&self, key: &str, upload: &SavedUpload) -> io::Result<()>;
}

/// Which upload a file has.
///
/// # Examples
/// ```
/// use upload_gateway_client::SavedUpload;
///
/// let saved = SavedUpload { upload_id: "uploads-…".into(), ..SavedUpload::default() };
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedUpload {
    /// The upload.
    pub upload_id: String,
    /// The newest resume token. Empty if the gateway has sent none.
    pub resume_token: String,
    /// Whether the upload is complete.
    pub is_complete: bool,
    /// The size of the file in bytes, if the source is a file.
    pub size: Option<u64>,
    /// The modification time of the file, if the source is a file.
    pub modified: Option<SystemTime>,
}

/// How a resume decides whether a file is still the one that was saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Check {
    /// By its size and its modification time, without reading it.
    #[default]
    Time,
    /// By its size and its MD5, which is computed from all of its bytes.
    Checksum,
}

/// Where an upload is kept, and how its file is compared.
#[derive(Clone)]
pub(crate) struct Resume {
    pub(crate) store: Arc<dyn ResumeStore>,
    pub(crate) key: String,
    pub(crate) check: Check,
}

// === impl SavedUpload ===

impl SavedUpload {
    /// Whether a file with this stamp may be the one that was saved. A source without a stamp is compared by its bytes.
    pub(crate) fn is_of(&self, stamp: Option<&Stamp>, check: Check) -> bool {
        let Some(stamp) = stamp else { return true };
        match check {
            Check::Time => (self.size, self.modified) == (Some(stamp.size), stamp.modified),
            Check::Checksum => self.size == Some(stamp.size),
        }
    }
}

// === impl Resume ===

impl fmt::Debug for Resume {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Resume")
            .field("key", &self.key)
            .field("check", &self.check)
            .finish_non_exhaustive()
    }
}
