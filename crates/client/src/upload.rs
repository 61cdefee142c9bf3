//! What an upload is called with, what it reports, and what it returns.

use std::time::Duration;

use crate::{
    digest::Md5,
    error::ClientError,
    proto::v1::{FileMetadata, Takeover, Upload, UploadProgress},
};

/// What to upload to: a new upload, or one that was started before.
///
/// # Examples
/// ```
/// use upload_gateway_client::{Target, proto::v1::FileMetadata};
///
/// let new = Target::file("report.pdf", 48_213);
/// let with_tags = Target::File(FileMetadata {
///     file_name: "report.pdf".into(),
///     tags: vec!["2026".into()],
///     ..FileMetadata::default()
/// });
/// let known = Target::Upload("uploads-…".into());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Creates an upload for this file. If `file_size` and `file_id` are set, the same create finds an open upload again.
    File(FileMetadata),
    /// Resumes the upload with this id. Before anything is sent, the committed parts are compared with the source.
    Upload(String),
}

/// How a file is sent.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use upload_gateway_client::UploadOptions;
///
/// let options = UploadOptions {
///     limit_rate: Some(10 * 1024 * 1024),
///     retry_timeout: Duration::from_secs(3600),
///     ..UploadOptions::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadOptions {
    /// The size in bytes of the chunks that are sent. Direct uploads ignore it.
    pub chunk_size: usize,
    /// The maximum rate in bytes per second. None: no limit. Direct uploads apply it to whole parts.
    pub limit_rate: Option<u64>,
    /// Compute the MD5 of the whole file, let the gateway check it, and compare it with the object. Direct uploads always
    /// do.
    pub digest: bool,
    /// Stop retrying when nothing more was committed for this time.
    pub retry_timeout: Duration,
    /// What happens to the active stream of another sender. With `Forbid`, the upload fails with `WRITER_ACTIVE`. If that
    /// stream may be a broken one of an earlier try, the client waits until the gateway has noticed. Direct uploads ignore
    /// it.
    pub takeover: Takeover,
}

/// What happens during an upload.
///
/// # Examples
/// ```
/// use upload_gateway_client::Event;
///
/// fn print(event: Event<'_>) {
///     match event {
///         Event::Opened(upload) => println!("upload {}", upload.upload_id),
///         Event::Progress(progress) => println!("{} bytes are committed", progress.committed_size),
///         Event::Retrying { cause, delay } => println!("{cause}; next try in {delay:?}"),
///     }
/// }
/// ```
#[derive(Debug)]
pub enum Event<'a> {
    /// The gateway has opened the upload. Each try reports it.
    Opened(&'a Upload),
    /// More bytes were received or committed, or the phase has changed.
    Progress(&'a UploadProgress),
    /// A try has failed, and another one follows.
    Retrying {
        /// Why it failed.
        cause: &'a ClientError,
        /// The time until the next try.
        delay: Duration,
    },
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
    /// The file's MD5. None if [`UploadOptions::digest`] is false, or if a direct upload could not prove it.
    pub md5: Option<Md5>,
    /// Where in the file the last resume continued, in bytes. 0 if the upload was not resumed.
    pub resumed_from: u64,
}

// === impl Target ===

impl Target {
    /// A new upload for a file of `size` bytes. None: the size is not known.
    pub fn file(name: impl Into<String>, size: impl Into<Option<u64>>) -> Self {
        Self::File(FileMetadata {
            file_name: name.into(),
            file_size: size.into().map(wire_size),
            ..FileMetadata::default()
        })
    }
}

// === impl UploadOptions ===

impl Default for UploadOptions {
    /// Chunks of 256 KiB, which perform best; no rate limit; with a digest; a retry timeout of five minutes; takes over.
    fn default() -> Self {
        Self {
            chunk_size: 256 * 1024,
            limit_rate: None,
            digest: true,
            retry_timeout: Duration::from_secs(300),
            takeover: Takeover::Force,
        }
    }
}

/// Compares the object with the file.
///
/// # Errors
/// `Mismatch`, and `Protocol` if the record has no object.
pub(crate) fn verify(upload: &Upload, size: u64, md5: Option<Md5>) -> Result<(), ClientError> {
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
    if let Some(md5) = md5
        && !object.md5.is_empty()
        && object.md5 != md5.to_string()
    {
        return Err(mismatch("MD5", md5.to_string(), object.md5.clone()));
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
        for (upload, is_same) in [
            (complete(3, &md5.to_string()), true),
            (complete(3, ""), true),
            (complete(4, &md5.to_string()), false),
            (complete(3, &Md5::of(b"xyz").to_string()), false),
            (Upload::default(), false),
        ] {
            assert_eq!(verify(&upload, 3, Some(md5)).is_ok(), is_same, "{upload:?}");
        }
        assert!(verify(&complete(3, &Md5::of(b"xyz").to_string()), 3, None).is_ok());
    }
}
