//! Receives a request body into a durable temporary file and computes its MD5 and CRC64NVME.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use md5::{Digest, Md5};
use s3s::dto::StreamingBlob;
use s3s::s3_error;
use tokio::task::{JoinHandle, spawn_blocking};
use upload_gateway_core::upload::Crc64Nvme;

use super::checksum::NamedCrc;
use super::failure::Failure;
use super::files::Temporary;
use crate::private_files;

/// The largest part, and the largest object put in one call (S3's own limit).
const MAXIMUM_SIZE: u64 = 5 << 30;
/// How many bytes are collected before they are written. A request holds at most two such batches and one network
/// buffer.
const BATCH_SIZE: usize = 256 << 10;
/// How long a client may send nothing within a body.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// A complete body on disk: its bytes, followed by their MD5.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) file: Temporary,
    pub(super) md5: [u8; 16],
    pub(super) crc64nvme: Crc64Nvme,
    /// Whether the request named the CRC64NVME.
    pub(super) crc64nvme_named: bool,
    pub(super) size: u64,
}

/// What a request declares about its body.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) content_length: Option<i64>,
    /// The Content-MD5 header: base64 of 16 bytes.
    pub(super) content_md5: Option<String>,
    pub(super) crc64nvme: NamedCrc,
}

struct Writer {
    file: File,
    temporary: Temporary,
    digest: Md5,
    crc64nvme: Crc64Nvme,
    size: u64,
}

/// Reads the whole body into `temporary` and syncs it.
///
/// # Errors
///
/// `InvalidDigest`, `InvalidRequest`, `BadDigest`, `IncompleteBody`, `EntityTooLarge`, `RequestTimeout`, or an internal error.
pub(super) async fn receive(
    temporary: Temporary,
    body: Option<StreamingBlob>,
    declared: Declared,
) -> Result<Received, Failure> {
    if declared
        .content_length
        .is_some_and(|length| length.unsigned_abs() > MAXIMUM_SIZE)
    {
        return Err(s3_error!(EntityTooLarge).into());
    }
    let mut writing: JoinHandle<io::Result<Writer>> =
        spawn_blocking(move || Writer::create(temporary));
    let (mut batch, mut batched, mut total) = (Vec::new(), 0, 0);
    if let Some(mut body) = body {
        while let Some(chunk) = next_chunk(&mut body).await? {
            batched += chunk.len();
            total += chunk.len() as u64;
            batch.push(chunk);
            if total > MAXIMUM_SIZE {
                return Err(s3_error!(EntityTooLarge).into());
            }
            if batched >= BATCH_SIZE {
                // The next batch is collected while this one is written.
                writing = write(writing, std::mem::take(&mut batch)).await?;
                batched = 0;
            }
        }
    }
    let writer = write(writing, batch).await?.await??;
    writer.check(&declared)?;
    let named = declared.crc64nvme.check(writer.crc64nvme)?;
    Ok(spawn_blocking(move || writer.finish(named)).await??)
}

async fn next_chunk(body: &mut StreamingBlob) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout(SILENCE_LIMIT, body.next()).await {
        Err(_) => Err(s3_error!(RequestTimeout, "the body stopped arriving").into()),
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        // The body was cut off or does not match its signature.
        Ok(Some(Err(error))) => Err(s3_error!(IncompleteBody, "read the body: {error}").into()),
    }
}

async fn write(
    writing: JoinHandle<io::Result<Writer>>,
    batch: Vec<Bytes>,
) -> Result<JoinHandle<io::Result<Writer>>, Failure> {
    let writer = writing.await??;
    Ok(spawn_blocking(move || writer.write(&batch)))
}

// === impl Writer ===

impl Writer {
    fn create(temporary: Temporary) -> io::Result<Self> {
        Ok(Self {
            file: private_files::create_new(temporary.path())?,
            temporary,
            digest: Md5::new(),
            crc64nvme: Crc64Nvme::default(),
            size: 0,
        })
    }

    fn write(mut self, batch: &[Bytes]) -> io::Result<Self> {
        for chunk in batch {
            self.digest.update(chunk);
            self.crc64nvme = self.crc64nvme.extend(chunk);
            self.file.write_all(chunk)?;
            self.size += chunk.len() as u64;
        }
        Ok(self)
    }

    fn check(&self, declared: &Declared) -> Result<(), Failure> {
        let length = declared.content_length.map(i64::unsigned_abs);
        if length.is_some_and(|length| length != self.size) {
            return Err(s3_error!(IncompleteBody).into());
        }
        if let Some(content_md5) = &declared.content_md5 {
            let expected = BASE64_STANDARD.decode(content_md5).unwrap_or_default();
            if expected.len() != 16 {
                return Err(
                    s3_error!(InvalidDigest, "the Content-MD5 you specified is not valid").into(),
                );
            }
            if expected != self.digest.clone().finalize().as_slice() {
                return Err(s3_error!(
                    BadDigest,
                    "the Content-MD5 you specified did not match what was received"
                )
                .into());
            }
        }
        Ok(())
    }

    fn finish(mut self, crc64nvme_named: bool) -> io::Result<Received> {
        let md5: [u8; 16] = self.digest.finalize().into();
        self.file.write_all(&md5)?;
        self.file.sync_all()?;
        Ok(Received {
            file: self.temporary,
            md5,
            crc64nvme: self.crc64nvme,
            crc64nvme_named,
            size: self.size,
        })
    }
}
