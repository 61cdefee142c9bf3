//! The choice of a file's digest.

use upload_gateway_client::proto::v1::FileDigest;
use upload_gateway_core::{
    error::{Error, Result},
    upload::DigestChoice,
};

/// A choice in a request.
pub(super) fn from_wire(choice: i32) -> Result<DigestChoice> {
    Ok(match FileDigest::try_from(choice) {
        Ok(FileDigest::Unspecified | FileDigest::Auto) => DigestChoice::Auto,
        Ok(FileDigest::Md5) => DigestChoice::Md5,
        Ok(FileDigest::Crc64nvme) => DigestChoice::Crc64Nvme,
        Ok(FileDigest::None) => DigestChoice::None,
        Err(_) => return Err(Error::invalid("file.file_digest", "unknown value")),
    })
}

/// A choice in a response.
pub(super) fn to_wire(choice: DigestChoice) -> FileDigest {
    match choice {
        DigestChoice::Auto => FileDigest::Auto,
        DigestChoice::Md5 => FileDigest::Md5,
        DigestChoice::Crc64Nvme => FileDigest::Crc64nvme,
        DigestChoice::None => FileDigest::None,
    }
}
