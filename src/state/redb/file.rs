//! The open state file, which is opened again after a failure of reading or writing.
//!
//! After such a failure, a full disk for example, redb refuses every further write until the file is opened again. The
//! next call then closes the file and opens it. As long as that fails, calls are `Unavailable`.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ::redb::Database;
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock},
    task::spawn_blocking,
};
use upload_gateway_core::error::{Error, Kind, Result};

use super::open::open;

/// The state file. Clones share it.
#[derive(Clone)]
pub(super) struct File {
    path: PathBuf,
    /// `None` if the file could not be opened again. redb locks the file, so it must be closed first.
    database: Arc<RwLock<Option<Database>>>,
    has_failed: Arc<AtomicBool>,
}

// === impl File ===

impl File {
    pub(super) fn new(path: PathBuf, database: Database) -> Self {
        Self {
            path,
            database: Arc::new(RwLock::new(Some(database))),
            has_failed: Arc::default(),
        }
    }

    /// Runs `work` on the open file, outside the async workers. A failure of the file makes the next call open it again.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let opened = self.opened().await?;
        let has_failed = Arc::clone(&self.has_failed);
        spawn_blocking(move || {
            let database = opened.as_ref().ok_or_else(closed)?;
            let answer = work(database);
            let is_failure = |error: &Error| error.kind() == Kind::Unavailable;
            if answer.as_ref().is_err_and(is_failure) {
                has_failed.store(true, Ordering::SeqCst);
            }
            answer
        })
        .await
        .map_err(|cause| Error::internal("a task on the state file panicked", cause))?
    }

    /// Whether the file is open, or no call has tried to open it again yet.
    pub(super) fn is_open(&self) -> bool {
        self.database
            .try_read()
            .map_or(true, |database| database.is_some())
    }

    async fn opened(&self) -> Result<OwnedRwLockReadGuard<Option<Database>>> {
        if self.has_failed.load(Ordering::SeqCst) {
            self.reopen().await?;
        }
        Ok(Arc::clone(&self.database).read_owned().await)
    }

    /// Closes the file when no call uses it, and opens it again.
    async fn reopen(&self) -> Result<()> {
        let mut database = Arc::clone(&self.database).write_owned().await;
        if !self.has_failed.load(Ordering::SeqCst) {
            // Another call has done it.
            return Ok(());
        }
        let (path, has_failed) = (self.path.clone(), Arc::clone(&self.has_failed));
        // Runs to its end even if the call is cancelled: it holds the lock until then.
        let opened = spawn_blocking(move || {
            *database = None;
            *database = Some(open(&path).map_err(Error::state_unavailable)?);
            has_failed.store(false, Ordering::SeqCst);
            tracing::warn!(path = %path.display(), "opened the state file again after a failure");
            Ok(())
        });
        opened
            .await
            .map_err(|cause| Error::internal("a task on the state file panicked", cause))?
    }
}

fn closed() -> Error {
    Error::state_unavailable("the state file could not be opened again after a failure")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn fails(_: &Database) -> Result<()> {
        Err(Error::state_unavailable("no space left on device"))
    }

    #[tokio::test]
    async fn a_file_that_failed_is_opened_again_as_soon_as_that_works() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("state.redb");
        let file = File::new(path.clone(), open(&path).unwrap());
        assert!(file.run(fails).await.is_err());
        file.run(|_| Ok(())).await.unwrap();
        assert!(file.is_open());

        assert!(file.run(fails).await.is_err());
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        fs::create_dir(&path).unwrap();
        for _ in 0..2 {
            let error = file.run(|_| Ok(())).await.unwrap_err();
            assert!(error.is_retryable(), "{error:?}");
            assert!(!file.is_open());
        }
        fs::remove_dir(&path).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
        file.run(|_| Ok(())).await.unwrap();
        assert!(file.is_open());
    }
}
