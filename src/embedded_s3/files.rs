//! Durable file operations. All of them block.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::private_files;

/// A file or directory that no response has referred to yet: removed on drop, unless it was published.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
}

/// 32 random, unguessable hexadecimal digits.
pub(super) fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Makes renames, creations and removals in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates `directory` durably if it does not exist; its parent must exist.
pub(super) fn ensure_directory(directory: &Path) -> io::Result<()> {
    match private_files::create_directory(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => directory.parent().map_or(Ok(()), sync_directory),
    }
}

/// Removes a file durably; returns `false` if there was none.
pub(super) fn remove_durably(path: &Path) -> io::Result<bool> {
    let Some(()) = absent_as_none(fs::remove_file(path))? else {
        return Ok(false);
    };
    path.parent().map_or(Ok(()), sync_directory)?;
    Ok(true)
}

/// Writes `content` as the whole content of `path`: after a crash the file has the old content or the new one.
pub(super) fn write_durably(temporary: Temporary, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = private_files::create_new(&temporary.path)?;
    file.write_all(content)?;
    file.sync_all()?;
    temporary.publish(path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// As [`write_durably`], with `value` as JSON.
pub(super) fn write_json(
    temporary: Temporary,
    path: &Path,
    value: &impl Serialize,
) -> io::Result<()> {
    write_durably(temporary, path, &serde_json::to_vec(value)?)
}

/// Reads what [`write_json`] wrote; `None` if there is no such file.
///
/// # Errors
/// `InvalidData`, with the path in the message, if the file is damaged.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(content) = absent_as_none(fs::read(path))? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&content).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("read {}: {error}", path.display()),
        )
    })?;
    Ok(Some(value))
}

/// The UTF-8 names in `directory`, unsorted.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    entries
        .filter_map(|entry| {
            entry
                .map(|entry| entry.file_name().into_string().ok())
                .transpose()
        })
        .collect()
}

/// Turns "not found" into `None`.
pub(super) fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

// === impl Temporary ===

impl Temporary {
    /// A name in `directory` that does not exist yet.
    pub(super) fn new_in(directory: &Path) -> Self {
        Self {
            path: directory.join(random_name()),
        }
    }

    /// Its path until it is published.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames it to `target`, and atomically replaces a file there. Durable only after a sync of the directory.
    pub(super) fn publish(self, target: &Path) -> io::Result<()> {
        // The drop that follows has nothing to remove.
        fs::rename(&self.path, target)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If this fails, the next start removes it.
        if fs::remove_file(&self.path).is_err() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
