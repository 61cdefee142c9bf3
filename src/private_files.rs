//! Files and directories that only the user of the process can read, whatever its umask is. On Windows they have the
//! permissions of their directory, which in a user's profile are those of the user.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    path::Path,
};

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The permissions of the group and of other users.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// Creates a file that must not exist, and opens it for writing.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    private_file().write(true).create_new(true).open(path)
}

/// Opens a file for reading and writing, and creates it if it does not exist. Other users can no longer read one that they
/// could read.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = private_file();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        restrict(path, &metadata.permissions(), FILE_MODE);
    }
    Ok(file)
}

/// Creates a directory that must not exist; its parent must exist.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    private_directory().create(path)
}

/// Creates a directory and its parents if they do not exist. Those that exist stay as they are.
pub(crate) fn create_directories(path: &Path) -> io::Result<()> {
    private_directory().recursive(true).create(path)
}

/// As [`create_directories`], for a directory that belongs to the gateway alone: other users can no longer read one that
/// they could read.
pub(crate) fn own_directory(path: &Path) -> io::Result<()> {
    create_directories(path)?;
    restrict(path, &fs::metadata(path)?.permissions(), DIRECTORY_MODE);
    Ok(())
}

#[cfg(unix)]
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

#[cfg(unix)]
fn private_directory() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(DIRECTORY_MODE);
    builder
}

/// Only the owner can do this. On a volume of another owner the gateway works as before.
#[cfg(unix)]
fn restrict(path: &Path, found: &Permissions, mode: u32) {
    if found.mode() & OTHERS == 0 {
        return;
    }
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode)) {
        tracing::warn!(path = %path.display(), %error, "other users can read this file or directory, and that cannot be changed");
    }
}

#[cfg(not(unix))]
fn private_file() -> OpenOptions {
    OpenOptions::new()
}

#[cfg(not(unix))]
fn private_directory() -> DirBuilder {
    DirBuilder::new()
}

#[cfg(not(unix))]
fn restrict(_: &Path, _: &Permissions, _: u32) {}
