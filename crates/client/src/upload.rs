//! How an upload is sent, and its result.

use crate::{
    digest::{Crc64Nvme, Digests, Md5},
    error::ClientError,
    proto::v1::{Takeover, Upload},
    retry::RetryPolicy,
};

/// How bytes are sent.
#[derive(Debug, Clone)]
pub(crate) struct UploadOptions {
    pub(crate) chunk_size: usize,
    pub(crate) limit_rate: Option<u64>,
    pub(crate) digest: bool,
    pub(crate) retry: RetryPolicy,
    pub(crate) takeover: Takeover,
}

/// A complete upload: its object has the file's size, and the file's MD5 if the gateway knows that of the object.
///
/// # Examples
/// ```
/// use upload_gateway_client::Uploaded;
///
/// fn print(uploaded: &Uploaded) {
///     if let Some(object) = &uploaded.upload.object {
///         println!("{}/{}: {} bytes", object.bucket, object.key, uploaded.size);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Uploaded {
    /// The record, in phase COMPLETE.
    pub upload: Upload,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's MD5, if the gateway has computed it, too. `None` if [`digest`](crate::UploadBuilder::digest) is off, if a direct
    /// upload could not prove it, or if the file was not read because `was_complete`.
    pub md5: Option<Md5>,
    /// The file's CRC-64/NVME, in the same way.
    pub crc64nvme: Option<Crc64Nvme>,
    /// Where in the file the last resume continued, in bytes. 0 if the upload was not resumed.
    pub resumed_from: u64,
    /// The resume store knew the file as complete, and the gateway still has it: nothing was sent.
    pub was_complete: bool,
}

// === impl UploadOptions ===

impl Default for UploadOptions {
    fn default() -> Self {
        Self {
            chunk_size: 256 * 1024,
            limit_rate: None,
            digest: true,
            retry: RetryPolicy::default(),
            takeover: Takeover::Force,
        }
    }
}

/// Compares the object with the file.
///
/// # Errors
/// `Mismatch`, and `Protocol` if the record has no object.
pub(crate) fn verify(upload: &Upload, size: u64, file: Digests) -> Result<(), ClientError> {
    let mismatch = |what, expected: String, found: String| ClientError::Mismatch {
        upload_id: upload.upload_id.clone(),
        what,
        expected,
        found,
    };
    let Some(object) = &upload.object else {
        return Err(ClientError::protocol("the complete upload has no object"));
    };
    if u64::try_from(object.size) != Ok(size) {
        return Err(mismatch("size", size.to_string(), object.size.to_string()));
    }
    if let Some(md5) = file.md5
        && !object.md5.is_empty()
        && object.md5 != md5.to_string()
    {
        return Err(mismatch("MD5", md5.to_string(), object.md5.clone()));
    }
    if let Some((expected, found)) = file.crc64nvme.zip(object.crc64nvme.map(Crc64Nvme))
        && expected != found
    {
        return Err(mismatch(
            "CRC64NVME",
            expected.to_string(),
            found.to_string(),
        ));
    }
    Ok(())
}

/// A size as the API has it. No file is too large for an `int64`.
pub(crate) fn wire_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Object;

    #[test]
    fn an_object_of_another_size_or_digest_is_a_mismatch() {
        let md5 = Md5::of(b"abc");
        let complete = |size, md5: &str| Upload {
            object: Some(Object {
                size,
                md5: md5.into(),
                ..Object::default()
            }),
            ..Upload::default()
        };
        let with_crc64 = |bytes| {
            let mut upload = complete(3, "");
            let object = upload.object.as_mut().unwrap();
            object.crc64nvme = Some(Crc64Nvme::of(bytes).0);
            upload
        };
        for (upload, is_same) in [
            (complete(3, &md5.to_string()), true),
            (complete(3, ""), true),
            (complete(4, &md5.to_string()), false),
            (complete(3, &Md5::of(b"xyz").to_string()), false),
            (with_crc64(b"abc"), true),
            (with_crc64(b"xyz"), false),
            (Upload::default(), false),
        ] {
            assert_eq!(
                verify(&upload, 3, (md5, Crc64Nvme::of(b"abc")).into()).is_ok(),
                is_same,
                "{upload:?}"
            );
        }
        assert!(
            verify(
                &complete(3, &Md5::of(b"xyz").to_string()),
                3,
                Digests::default()
            )
            .is_ok()
        );
    }
}
