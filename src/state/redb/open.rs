//! Opens a state file.

use std::path::{Path, PathBuf};

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

/// Opens the file at `path`; creates it, and its directory, if it does not exist.
pub(super) fn open(path: &Path) -> Result<Database, OpenError> {
    let directory = path.parent().unwrap_or(Path::new(""));
    private_files::create_directories(directory).map_err(|source| OpenError::Directory {
        path: path.to_owned(),
        source,
    })?;
    let unusable = |source| OpenError::Unusable {
        path: path.to_owned(),
        source,
    };
    let file = private_files::open_or_create(path).map_err(|failure| unusable(failure.into()))?;
    let created = FileBackend::new(file).and_then(|file| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_SIZE);
        builder.create_with_backend(file)
    });
    let database = created.map_err(|failure| match failure {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked {
            path: path.to_owned(),
        },
        other => unusable(other.into()),
    })?;
    format::check(&database, path).map_err(|refusal| unusable(refusal.into()))?;
    Ok(database)
}
