//! Files and directories that only the user of the process can read, whatever its umask is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The permissions of the group and of other users.
const OTHERS: u32 = 0o077;

/// Creates a file that must not exist, and opens it for writing.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}

/// Opens a file for reading and writing, and creates it if it does not exist. Other users can no longer read one that they
/// could read.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        restrict(path, &metadata.permissions(), FILE_MODE);
    }
    Ok(file)
}

/// Creates a directory that must not exist; its parent must exist.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

/// Creates a directory and its parents if they do not exist. Those that exist stay as they are.
pub(crate) fn create_directories(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// As [`create_directories`], for a directory that belongs to the gateway alone: other users can no longer read one that
/// they could read.
pub(crate) fn own_directory(path: &Path) -> io::Result<()> {
    create_directories(path)?;
    restrict(path, &fs::metadata(path)?.permissions(), DIRECTORY_MODE);
    Ok(())
}

/// Only the owner can do this. On a volume of another owner the gateway works as before.
fn restrict(path: &Path, found: &Permissions, mode: u32) {
    if found.mode() & OTHERS == 0 {
        return;
    }
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode)) {
        tracing::warn!(path = %path.display(), %error, "other users can read this file or directory, and that cannot be changed");
    }
}
