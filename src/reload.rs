//! Values that are read from files, and read again when the files change: certificates, keys and their like rotate while the
//! process runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

/// How often the files are compared with what was read last. Kubernetes replaces the files of a Secret by changing a symbolic
/// link, which no file system event of the files themselves shows.
const INTERVAL: Duration = Duration::from_secs(1);

/// The largest file, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;

/// The latest value that was read from files.
#[derive(Debug)]
pub(crate) struct Reloaded<T>(watch::Receiver<Arc<T>>);

/// The content of files, in the order of their paths.
type Contents = Vec<Vec<u8>>;

// === impl Reloaded ===

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads a value from these files now, and again whenever they change. If they cannot be read then, the value stays as it
    /// is, and one warning with `what` says why. Must be called in a runtime. Reading stops when all copies are dropped.
    ///
    /// # Errors
    /// Those of `parse`, or a text that names the file that cannot be read.
    pub(crate) fn read(
        what: &'static str,
        paths: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + 'static,
    ) -> Result<Self, String> {
        let contents = contents(&paths)?;
        let (latest, reloaded) = watch::channel(Arc::new(parse(&contents)?));
        tokio::spawn(async move {
            let mut last = Ok(contents);
            loop {
                tokio::select! {
                    () = sleep(INTERVAL) => {}
                    () = latest.closed() => return,
                }
                let paths = paths.clone();
                let read = tokio::task::spawn_blocking(move || self::contents(&paths));
                let Ok(read) = read.await else { continue };
                if read == last {
                    continue;
                }
                match read.clone().and_then(|contents| parse(&contents)) {
                    Ok(value) => {
                        tracing::info!("{what}: the files have changed and are used now");
                        latest.send_replace(Arc::new(value));
                    }
                    Err(problem) => {
                        tracing::warn!(problem, "{what}: the changed files are not used");
                    }
                }
                last = read;
            }
        });
        Ok(Self(reloaded))
    }

    /// A value that does not change.
    pub(crate) fn fixed(value: T) -> Self {
        Self(watch::channel(Arc::new(value)).1)
    }

    /// The latest value.
    pub(crate) fn latest(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }
}

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn contents(paths: &[PathBuf]) -> Result<Contents, String> {
    paths.iter().map(|path| content(path)).collect()
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_SIZE {
        return Err(format!("{} is larger than 1 MiB", path.display()));
    }
    std::fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn number(contents: &[Vec<u8>]) -> Result<u32, String> {
        let text = String::from_utf8_lossy(&contents[0]);
        text.trim().parse().map_err(|_| "not a number".into())
    }

    async fn until(reloaded: &Reloaded<u32>, expected: u32) {
        while *reloaded.latest() != expected {
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_read_again_when_their_symbolic_link_changes() {
        let directory = tempfile::tempdir().unwrap();
        let [link, one, two] = ["link", "one", "two"].map(|name| directory.path().join(name));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        symlink(&one, &link).unwrap();
        let reloaded = Reloaded::read("a number", vec![link.clone()], number).unwrap();
        assert_eq!(*reloaded.latest(), 1);
        let next = directory.path().join("next");
        symlink(&two, &next).unwrap();
        fs::rename(&next, &link).unwrap();
        until(&reloaded, 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_cannot_be_used_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let read = || Reloaded::read("a number", vec![path.clone()], number);
        assert!(read().unwrap_err().contains("cannot read"));
        fs::write(&path, "x").unwrap();
        assert_eq!(read().unwrap_err(), "not a number");
        fs::write(&path, "1").unwrap();
        let reloaded = read().unwrap();
        for broken in ["x", "", "99999999999"] {
            fs::write(&path, broken).unwrap();
            sleep(3 * INTERVAL).await;
            assert_eq!(*reloaded.latest(), 1);
        }
        fs::remove_file(&path).unwrap();
        sleep(3 * INTERVAL).await;
        fs::write(&path, "2").unwrap();
        until(&reloaded, 2).await;
    }
}
