//! A resume store in a directory: a journal to which each save appends one line.
//!
//! Several processes may share the directory. Each holds a lock on a file of its own while it runs, so that the others know
//! which uploads are being sent. The journal is rewritten without its old lines when a process opens it and no other one runs.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

use super::{
    ResumeStore, SavedUpload,
    journal::{Entry, Journal},
};

/// How long a line is kept after it was saved.
const KEEP: Duration = Duration::from_secs(180 * 24 * 3600);

/// The journal is rewritten when it has this many lines more than entries.
const MAX_OLD_LINES: usize = 1000;

/// The journal in its directory.
const JOURNAL: &str = "uploads.journal";

/// Locked by each process that uses the directory, shared; exclusively by the one that rewrites the journal.
const LOCK: &str = "lock";

/// Locked by a process while it claims a file.
const CLAIMS: &str = "claims";

/// The extension of the files that the processes lock while they run.
const SENDER: &str = "sender";

/// Keeps uploads in a directory on disk, also if the process is killed. Lines are kept for 180 days.
///
/// # Examples
/// ```
/// use upload_gateway_client::{FileResumeStore, ResumeStore, SavedUpload};
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("uploads-{}", std::process::id()));
/// let store = FileResumeStore::open(&directory)?;
/// let saved = SavedUpload { upload_id: "uploads-1".into(), ..SavedUpload::default() };
/// store.save("film.mp4", &saved).await?;
/// assert_eq!(store.load("film.mp4").await?, Some(saved));
/// # std::fs::remove_dir_all(directory)
/// # }
/// ```
#[derive(Debug)]
pub struct FileResumeStore {
    directory: PathBuf,
    /// The name of this process in the journal.
    sender: String,
    journal: Mutex<Journal>,
    claims: File,
    /// Held while the process runs.
    _locks: [File; 2],
}

// === impl FileResumeStore ===

impl FileResumeStore {
    /// Opens the store in `directory`, which is created if it does not exist, readable by its owner only.
    ///
    /// # Errors
    /// The directory or its files cannot be created, read or locked.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = directory.as_ref();
        create_directory(directory)?;
        let lock = open(&directory.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {
                clean_up(directory)?;
                lock.unlock()?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.lock_shared()?;
        let sender = format!("{:016x}", rand::random::<u64>());
        let running = open(&sender_path(directory, &sender))?;
        running.lock()?;
        Ok(Self {
            journal: Mutex::new(Journal::open(&directory.join(JOURNAL))?),
            claims: open(&directory.join(CLAIMS))?,
            directory: directory.to_owned(),
            sender,
            _locks: [lock, running],
        })
    }

    /// What was saved last under `key`.
    ///
    /// # Errors
    /// `ResourceBusy` if another process is sending this file.
    fn find(&self, journal: &mut Journal, key: &str) -> io::Result<Option<SavedUpload>> {
        journal.read_more()?;
        let Some(entry) = journal.entries.get(key) else {
            return Ok(None);
        };
        let is_sent = !entry.saved.is_complete || entry.is_claimed;
        if is_sent && entry.sender != self.sender && self.is_running(&entry.sender)? {
            return Err(busy("another process is sending this file"));
        }
        Ok(Some(&entry.saved)
            .filter(|saved| !saved.upload_id.is_empty())
            .cloned())
    }

    fn claim_locked(
        &self,
        journal: &mut Journal,
        key: &str,
        loaded: Option<&SavedUpload>,
    ) -> io::Result<()> {
        if self.find(journal, key)?.as_ref() != loaded {
            return Err(busy("another process has sent this file just now"));
        }
        let saved = loaded.cloned().unwrap_or_default();
        journal.append(key, &self.entry(saved, true))
    }

    fn entry(&self, saved: SavedUpload, is_claimed: bool) -> Entry {
        Entry {
            saved,
            is_claimed,
            saved_at: SystemTime::now(),
            sender: self.sender.clone(),
        }
    }

    /// Whether the process with this name still runs.
    fn is_running(&self, sender: &str) -> io::Result<bool> {
        let file = match File::open(sender_path(&self.directory, sender)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ResumeStore for FileResumeStore {
    async fn load(&self, key: &str) -> io::Result<Option<SavedUpload>> {
        self.find(&mut self.journal(), key)
    }

    async fn claim(&self, key: &str, loaded: Option<&SavedUpload>) -> io::Result<()> {
        // One at a time in this process, too: its lock on the file is shared by all of its tasks.
        let mut journal = self.journal();
        self.claims.lock()?;
        let claimed = self.claim_locked(&mut journal, key, loaded);
        self.claims.unlock()?;
        claimed
    }

    async fn save(&self, key: &str, upload: &SavedUpload) -> io::Result<()> {
        let entry = self.entry(upload.clone(), false);
        self.journal().append(key, &entry)
    }
}

impl Drop for FileResumeStore {
    fn drop(&mut self) {
        // The next process removes it otherwise.
        let _ = fs::remove_file(sender_path(&self.directory, &self.sender));
    }
}

/// Removes what ended processes left, and rewrites the journal if it has many old lines. Called while no other process uses
/// the directory.
fn clean_up(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == SENDER)
        {
            fs::remove_file(path)?;
        }
    }
    let path = directory.join(JOURNAL);
    let mut journal = Journal::open(&path)?;
    let all = journal.entries.len();
    let oldest = SystemTime::now().checked_sub(KEEP).unwrap_or(UNIX_EPOCH);
    journal.entries.retain(|_, entry| entry.saved_at >= oldest);
    // Each entry takes two lines, of which one is empty.
    if journal.entries.len() == all && journal.lines <= 2 * (all + MAX_OLD_LINES) {
        return Ok(());
    }
    let mut lines = String::new();
    for (key, entry) in &journal.entries {
        lines.push_str(&entry.line(key)?);
    }
    let new = path.with_extension("new");
    fs::write(&new, lines)?;
    fs::rename(new, path)
}

fn busy(problem: &str) -> io::Error {
    io::Error::new(ErrorKind::ResourceBusy, problem)
}

fn sender_path(directory: &Path, sender: &str) -> PathBuf {
    directory.join(sender).with_extension(SENDER)
}

fn create_directory(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::resume::journal::time;

    fn saved(upload_id: &str) -> SavedUpload {
        SavedUpload {
            upload_id: upload_id.into(),
            resume_token: "token".into(),
            is_complete: false,
            size: Some(7),
            modified: Some(time(1_700_000_000_123_456_789)),
        }
    }

    #[tokio::test]
    async fn another_process_finds_what_was_saved_last() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileResumeStore::open(directory.path()).unwrap();
        store.save("a", &saved("uploads-1")).await.unwrap();
        store.save("a", &saved("uploads-2")).await.unwrap();
        let complete = SavedUpload {
            is_complete: true,
            size: None,
            modified: None,
            ..saved("uploads-3")
        };
        store.save("b c", &complete).await.unwrap();
        drop(store);
        let store = FileResumeStore::open(directory.path()).unwrap();
        assert_eq!(store.load("a").await.unwrap(), Some(saved("uploads-2")));
        assert_eq!(store.load("b c").await.unwrap(), Some(complete));
        assert_eq!(store.load("c").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_a_running_process_sends_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = FileResumeStore::open(directory.path()).unwrap();
        let second = FileResumeStore::open(directory.path()).unwrap();
        first.save("a", &saved("uploads-1")).await.unwrap();
        let refused = second.load("a").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        assert_eq!(first.load("a").await.unwrap(), Some(saved("uploads-1")));
        drop(first);
        assert_eq!(second.load("a").await.unwrap(), Some(saved("uploads-1")));
    }

    #[tokio::test]
    async fn only_one_of_several_processes_begins_to_send_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let first = FileResumeStore::open(directory.path()).unwrap();
        let second = FileResumeStore::open(directory.path()).unwrap();
        let is_refused = async |loaded: Option<&SavedUpload>| {
            let refused = second.claim("a", loaded).await.unwrap_err();
            refused.kind() == ErrorKind::ResourceBusy
        };
        first.claim("a", None).await.unwrap();
        assert!(is_refused(None).await);
        assert_eq!(first.load("a").await.unwrap(), None);
        first.save("a", &saved("uploads-1")).await.unwrap();
        assert!(is_refused(Some(&saved("uploads-1"))).await);
        let complete = SavedUpload {
            is_complete: true,
            ..saved("uploads-1")
        };
        first.save("a", &complete).await.unwrap();
        // What it had loaded is old.
        assert!(is_refused(None).await);
        assert_eq!(second.load("a").await.unwrap().as_ref(), Some(&complete));
        first.claim("a", Some(&complete)).await.unwrap();
        assert!(is_refused(Some(&complete)).await);
        drop(first);
        assert_eq!(second.load("a").await.unwrap().as_ref(), Some(&complete));
        second.claim("a", Some(&complete)).await.unwrap();
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileResumeStore::open(directory.path()).unwrap();
        store.save("a", &saved("uploads-1")).await.unwrap();
        let mut journal = OpenOptions::new()
            .append(true)
            .open(directory.path().join(JOURNAL))
            .unwrap();
        journal.write_all(b"\ncomplete\t7\t17").unwrap();
        store.save("b", &saved("uploads-2")).await.unwrap();
        assert_eq!(store.load("a").await.unwrap(), Some(saved("uploads-1")));
        assert_eq!(store.load("b").await.unwrap(), Some(saved("uploads-2")));
    }

    #[tokio::test]
    async fn old_lines_are_removed_when_no_other_process_runs() {
        let directory = tempfile::tempdir().unwrap();
        let size = || {
            let journal = directory.path().join(JOURNAL);
            fs::metadata(journal).unwrap().len()
        };
        let store = FileResumeStore::open(directory.path()).unwrap();
        for _ in 0..2 * MAX_OLD_LINES {
            store.save("a", &saved("uploads-1")).await.unwrap();
        }
        let before = size();
        let other = FileResumeStore::open(directory.path()).unwrap();
        assert_eq!(size(), before);
        drop((store, other));
        let store = FileResumeStore::open(directory.path()).unwrap();
        assert!(size() < 200, "{}", size());
        assert_eq!(store.load("a").await.unwrap(), Some(saved("uploads-1")));
    }

    #[tokio::test]
    async fn lines_are_dropped_after_half_a_year() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(JOURNAL);
        let entry = |age| Entry {
            saved: saved("uploads-1"),
            is_claimed: false,
            saved_at: SystemTime::now() - age,
            sender: "other".into(),
        };
        let (old, new) = (entry(KEEP * 2), entry(KEEP / 2));
        fs::write(&path, old.line("old").unwrap() + &new.line("new").unwrap()).unwrap();
        let store = FileResumeStore::open(directory.path()).unwrap();
        assert_eq!(store.load("old").await.unwrap(), None);
        assert!(store.load("new").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_key_with_a_control_character_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileResumeStore::open(directory.path()).unwrap();
        let refused = store.save("a\nb", &saved("uploads-1")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
}
