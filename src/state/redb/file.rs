//! The open state file, which is opened again after a failure of reading or writing.
//!
//! After such a failure, a full disk for example, redb refuses every further write until the file is opened again. The
//! next call then closes the file and opens it, at most once per [`REOPEN_PAUSE`]. Until that succeeds, calls are
//! `Unavailable`. The log gets one line when the file fails, and one when a write succeeds again.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::redb::Database;
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock},
    task::spawn_blocking,
    time::Instant,
};
use upload_gateway_core::error::{Error, Kind, Result};

use super::open::open;

/// The shortest time between two attempts to open the file again: opening may have to check all of it.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// The state file. Clones share it.
#[derive(Clone)]
pub(super) struct File {
    path: PathBuf,
    /// `None` if the file could not be opened again. redb locks the file, so it must be closed first.
    database: Arc<RwLock<Option<Database>>>,
    /// A std mutex: held for a few instructions, never across an await.
    health: Arc<Mutex<Health>>,
}

/// Whether the file works.
#[derive(Debug, Default)]
struct Health {
    /// From the first failure until a write succeeds.
    is_failing: bool,
    /// Whether the file must be opened again before it is used.
    must_reopen: bool,
    /// When the last attempt to open it again began.
    reopened_at: Option<Instant>,
}

// === impl File ===

impl File {
    pub(super) fn new(path: PathBuf, database: Database) -> Self {
        Self {
            path,
            database: Arc::new(RwLock::new(Some(database))),
            health: Arc::default(),
        }
    }

    /// Runs `work`, which writes, as [`File::read`] does. If it succeeds, the file works.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (health, path) = (Arc::clone(&self.health), self.path.clone());
        self.read(move |database| {
            let answer = work(database)?;
            if lock(&health).works() {
                tracing::warn!(path = %path.display(), "the state file works again");
            }
            Ok(answer)
        })
        .await
    }

    /// Runs `work` on the open file, outside the async workers. A failure of the file makes the next call open it again.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let opened = self.opened().await?;
        let (health, path) = (Arc::clone(&self.health), self.path.clone());
        spawn_blocking(move || {
            let database = opened.as_ref().ok_or_else(closed)?;
            let answer = work(database);
            if let Err(error) = &answer
                && error.kind() == Kind::Unavailable
            {
                note_failure(&health, &path, error);
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
        if lock(&self.health).must_reopen {
            self.reopen().await?;
        }
        Ok(Arc::clone(&self.database).read_owned().await)
    }

    /// Closes the file when no call uses it, and opens it again.
    async fn reopen(&self) -> Result<()> {
        let mut database = Arc::clone(&self.database).write_owned().await;
        if !lock(&self.health).begins_to_reopen(Instant::now())? {
            // Another call has done it.
            return Ok(());
        }
        let (path, health) = (self.path.clone(), Arc::clone(&self.health));
        // Runs to its end even if the call is cancelled: it holds the lock until then.
        let opened = spawn_blocking(move || {
            *database = None;
            *database = Some(open(&path).map_err(Error::state_unavailable)?);
            lock(&health).must_reopen = false;
            Ok(())
        });
        opened
            .await
            .map_err(|cause| Error::internal("a task on the state file panicked", cause))?
    }
}

// === impl Health ===

impl Health {
    /// The open file has failed. Returns whether it worked before.
    fn fails(&mut self) -> bool {
        self.must_reopen = true;
        !std::mem::replace(&mut self.is_failing, true)
    }

    /// A write has succeeded. Returns whether the file failed before.
    fn works(&mut self) -> bool {
        // A write may end after a read on the same open file has failed.
        !self.must_reopen && std::mem::take(&mut self.is_failing)
    }

    /// Whether the caller, who has the file for itself, must open it again now.
    ///
    /// # Errors
    /// The last attempt was less than [`REOPEN_PAUSE`] ago.
    fn begins_to_reopen(&mut self, now: Instant) -> Result<bool> {
        if !self.must_reopen {
            return Ok(false);
        }
        let is_early = |last: Instant| now.saturating_duration_since(last) < REOPEN_PAUSE;
        if self.reopened_at.is_some_and(is_early) {
            return Err(closed());
        }
        self.reopened_at = Some(now);
        Ok(true)
    }
}

fn note_failure(health: &Mutex<Health>, path: &Path, error: &Error) {
    if lock(health).fails() {
        let cause = error.source().map(ToString::to_string);
        tracing::warn!(path = %path.display(), cause, "the state file failed and will be opened again");
    }
}

fn lock(health: &Mutex<Health>) -> MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn closed() -> Error {
    Error::state_unavailable("the state file failed and is not open again yet")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;
    use tokio::time::advance;

    use super::*;

    fn fails(_: &Database) -> Result<()> {
        Err(Error::state_unavailable("no space left on device"))
    }

    fn file(directory: &TempDir) -> File {
        let path = directory.path().join("state.redb");
        let database = open(&path).unwrap();
        File::new(path, database)
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_failed_is_opened_again_as_soon_as_that_works() {
        let directory = TempDir::new().unwrap();
        let file = file(&directory);
        assert!(file.write(fails).await.is_err());
        file.write(|_| Ok(())).await.unwrap();
        assert!(file.is_open());

        assert!(file.write(fails).await.is_err());
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&file.path, &elsewhere).unwrap();
        fs::create_dir(&file.path).unwrap();
        for _ in 0..2 {
            advance(REOPEN_PAUSE).await;
            let error = file.read(|_| Ok(())).await.unwrap_err();
            assert!(error.is_retryable(), "{error:?}");
            assert!(!file.is_open());
        }
        fs::remove_dir(&file.path).unwrap();
        fs::rename(&elsewhere, &file.path).unwrap();
        advance(REOPEN_PAUSE).await;
        file.write(|_| Ok(())).await.unwrap();
        assert!(file.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_keeps_failing_is_opened_once_per_pause() {
        let directory = TempDir::new().unwrap();
        let file = file(&directory);
        let mut ran = 0;
        for _ in 0..40 {
            let (sender, receiver) = std::sync::mpsc::channel();
            let failed = file.write(move |database| {
                sender.send(()).unwrap();
                fails(database)
            });
            failed.await.unwrap_err();
            ran += receiver.try_iter().count();
            advance(REOPEN_PAUSE / 10).await;
        }
        // At once, at once after the first reopening, and then once per pause.
        assert_eq!(ran, 5);
    }

    #[test]
    fn a_file_fails_until_a_write_succeeds_on_the_reopened_one() {
        let mut health = Health::default();
        assert!(!health.works());
        assert!(health.fails());
        assert!(!health.works(), "it is not open again yet");
        for pauses in 0..3 {
            let now = Instant::now() + pauses * REOPEN_PAUSE;
            assert!(health.begins_to_reopen(now).unwrap());
            health.must_reopen = false;
            assert!(!health.fails(), "it was failing already");
        }
        health.must_reopen = false;
        assert!(health.works());
        assert!(!health.works());
    }
}
