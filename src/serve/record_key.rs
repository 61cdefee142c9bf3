//! The settings of a gateway, with the key that seals what the stores keep of records.

use std::{fs, io, path::Path, str};

use base64::{Engine, engine::general_purpose::STANDARD};
use std::io::Write as _;
use upload_gateway_core::{gateway::Settings, seal::SealKey};

use super::error::ServeError;
use crate::{config::Config, private_files};

/// The file with the key, in `data_dir`.
const FILE: &str = "records.key";

/// The id of that key.
const KEY_ID: &str = "data";

/// The settings of `config`. If the state is embedded and no key is configured, the key is in a file beside the state, which is
/// made at first.
///
/// # Errors
/// The file cannot be made or read, or does not contain a key.
pub(super) fn settings(config: &Config) -> Result<Settings, ServeError> {
    let settings = config.settings()?;
    if !settings.record_keys.is_empty() {
        return Ok(settings);
    }
    if config.redis_url.is_some() {
        tracing::warn!(
            "records.key is not set: if Redis loses records, their files are not found any more, and `upload-gateway records rebuild` finds no owners"
        );
        return Ok(settings);
    }
    let path = config.data_dir.join(FILE);
    let key = read_or_make(&path)
        .map_err(|error| format!("read the key in {}: {error}", path.display()))?;
    Ok(Settings {
        record_keys: vec![SealKey::new(KEY_ID, &key)],
        ..settings
    })
}

fn read_or_make(path: &Path) -> io::Result<[u8; 32]> {
    match fs::read(path) {
        Ok(text) => parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it is not 32 bytes in base64")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

/// The state file, which is open, keeps other processes from doing the same.
fn make(path: &Path) -> io::Result<[u8; 32]> {
    let key: [u8; 32] = rand::random();
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private_files::create_new(&temporary)?;
    writeln!(file, "{}", STANDARD.encode(key))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(key)
}

fn parse(text: &[u8]) -> Option<[u8; 32]> {
    let text = str::from_utf8(text).ok()?;
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_of_a_directory_is_made_once_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let key = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), key);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, "c2hvcnQ=\n").unwrap();
        assert!(read_or_make(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"c2hvcnQ=\n");
    }
}
