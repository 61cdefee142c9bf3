//! The CRC64NVME of parts, kept beside them. Everything here blocks.
//!
//! A part of an upload with this checksum has a second file, `<number>.crc64nvme`, with its CRC and its MD5. It is not
//! synced, and not replaced together with the part: where it is missing, damaged or of another part, the CRC is computed
//! again from the bytes. Builds that do not know it read the same parts.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use upload_gateway_core::upload::Crc64Nvme;

use super::files::Temporary;
use super::values::hexadecimal;
use crate::private_files;

/// How many bytes are read at a time.
const PIECE_SIZE: usize = 256 << 10;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Of the part that has this CRC.
    md5: String,
    crc64nvme: Crc64Nvme,
}

/// Keeps the CRC of the part in the file `part`, which has this MD5.
pub(super) fn keep(
    temporary: Temporary,
    part: &Path,
    md5: &[u8; 16],
    crc64nvme: Crc64Nvme,
) -> io::Result<()> {
    let md5 = hexadecimal(md5);
    let content = serde_json::to_vec(&Kept { md5, crc64nvme })?;
    private_files::create_new(temporary.path())?.write_all(&content)?;
    temporary.publish(&path(part))
}

/// The CRC of the part in the file `part`, which is open as `file`, and has this size and MD5.
pub(super) fn read(
    part: &Path,
    file: &mut File,
    size: u64,
    md5: &[u8; 16],
) -> io::Result<Crc64Nvme> {
    let kept = fs::read(path(part)).ok();
    let kept = kept.and_then(|content| serde_json::from_slice::<Kept>(&content).ok());
    match kept.filter(|kept| kept.md5 == hexadecimal(md5)) {
        Some(kept) => Ok(kept.crc64nvme),
        None => compute(file, size),
    }
}

fn path(part: &Path) -> PathBuf {
    part.with_extension("crc64nvme")
}

fn compute(file: &mut File, size: u64) -> io::Result<Crc64Nvme> {
    file.rewind()?;
    let mut bytes = file.take(size);
    let mut piece = vec![0; PIECE_SIZE];
    let mut crc = Crc64Nvme::default();
    loop {
        match bytes.read(&mut piece)? {
            0 => return Ok(crc),
            length => crc = crc.extend(&piece[..length]),
        }
    }
}
