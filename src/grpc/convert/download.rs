//! The messages of `Download`.

use ::bytes::Bytes;
use upload_gateway_client::proto::v1::{self, download_response::Message};
use upload_gateway_core::{
    error::{All, Result},
    gateway::Chunk,
    upload::Upload,
};

use super::{bytes, size, upload};

/// A chunk of a file, without its bytes.
pub(in crate::grpc) fn chunk_fields(chunk: &Chunk) -> v1::Chunk {
    v1::Chunk {
        offset: bytes(chunk.offset),
        data: Bytes::new(),
        crc32c: chunk.crc32c,
    }
}

/// The message with the record of a file that is read.
pub(in crate::grpc) fn record(record: &Upload) -> v1::DownloadResponse {
    v1::DownloadResponse {
        message: Some(Message::Upload(upload(record))),
    }
}

/// The offset and the length of a range of bytes; no length if it is 0.
pub(in crate::grpc) fn range(offset: i64, length: i64) -> Result<(u64, Option<u64>)> {
    let (offset, length) = (size("offset", offset), size("length", length)).all()?;
    Ok((offset, Some(length).filter(|length| *length > 0)))
}
