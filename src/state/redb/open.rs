//! Opens a state file.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use ::redb::{Database, DatabaseError, backends::FileBackend};

use super::format;
use crate::private_files;

/// How many bytes of the file redb keeps in memory; its default is 1 GiB. The system keeps others.
const CACHE_SIZE: usize = 32 * 1024 * 1024;

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another gateway has {} open", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Its directory cannot be created.
    #[error("cannot create the directory of {}", path.display())]
    Directory {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a state file, is damaged, has a format that this build does not read, or cannot be read.
    #[error("cannot open the state file {}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Opens the file at `path`; creates it, and its directory, if it does not exist. A process that is killed meanwhile leaves a
/// file that can be opened, or none.
pub(super) fn open(path: &Path) -> Result<Database, OpenError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    private_files::create_directories(directory).map_err(|source| OpenError::Directory {
        path: path.to_owned(),
        source,
    })?;
    if !path.exists()
        && let Some(created) = create(path, directory)?
    {
        return Ok(created);
    }
    open_existing(path, path)
}

/// Creates the file as a whole, under another name at first: redb cannot open one whose creation a kill has interrupted. `None`:
/// another process was faster.
fn create(path: &Path, directory: &Path) -> Result<Option<Database>, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{:016x}", rand::random::<u64>()));
    let new = PathBuf::from(name);
    let database = open_existing(&new, path)?;
    let is_first = match fs::hard_link(&new, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        linked => linked
            .map(|()| true)
            .map_err(|failure| unusable(path, failure))?,
    };
    let cleared = fs::remove_file(&new).and_then(|()| File::open(directory)?.sync_all());
    cleared.map_err(|failure| unusable(path, failure))?;
    Ok(is_first.then_some(database))
}

/// Opens the database in `file`. Errors name `path`.
fn open_existing(file: &Path, path: &Path) -> Result<Database, OpenError> {
    let opened = private_files::open_or_create(file).map_err(|failure| unusable(path, failure))?;
    let created = FileBackend::new(opened).and_then(|file| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_SIZE);
        builder.create_with_backend(file)
    });
    let database = created.map_err(|failure| match failure {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked {
            path: path.to_owned(),
        },
        other => unusable(path, other),
    })?;
    format::check(&database, path).map_err(|refusal| unusable(path, refusal))?;
    Ok(database)
}

fn unusable(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::Unusable {
        path: path.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn an_interrupted_creation_leaves_nothing_that_stops_the_next_one() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("state.redb");
        // As left by a process that was killed.
        fs::write(directory.path().join("state.redb.new-0"), [0; 4096]).unwrap();
        drop(open(&path).unwrap());
        drop(open(&path).unwrap());
        let names = fs::read_dir(directory.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let file = fs::read(&path).unwrap();
        assert!(!file.starts_with(&[0; 9]), "it was never incomplete");
    }

    #[test]
    fn processes_that_start_at_the_same_time_share_no_half_made_file() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("state.redb");
        let opened = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path))).collect();
            let opened = threads.into_iter().map(|thread| thread.join().unwrap());
            opened.collect::<Vec<_>>()
        });
        assert!(opened.iter().any(Result::is_ok));
        for refused in opened.iter().filter_map(|opened| opened.as_ref().err()) {
            assert!(matches!(refused, OpenError::Locked { .. }), "{refused:?}");
        }
    }
}
