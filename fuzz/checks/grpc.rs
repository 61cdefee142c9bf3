//! Random messages, as streams and unary calls receive them.

use std::{fmt::Debug, mem};

use bytes::Bytes;
use prost::Message as _;
use upload_gateway_client::proto::v1;
use upload_gateway_core::{
    error::{Error, Kind, Result},
    gateway::{Message, Next, Target},
    upload::{FileMetadata, Upload, UploadId},
};

use super::{
    convert::{self, signing},
    messages::{Read, Reader},
};
use crate::{
    fuzzing::{Input, upload_of},
    status::grpc_status,
};

/// A message with a chunk of one byte.
const FIRST_CHUNK: &[u8] = b"\x12\x03\x12\x01x";

/// An accepted message respects the limits, and its file converts back to the same message. Any other message is refused
/// as an error of the client.
pub fn stream_message(bytes: &[u8]) {
    let Ok(request) = v1::UploadRequest::decode(bytes) else {
        return;
    };
    match checked(convert::message(request)) {
        Some(Message::Open(open)) => match open.target {
            Target::File { file, storage_id } => converts_back(&(file, storage_id)),
            Target::Upload(id) => is_canonical(&id),
            Target::Copy { .. } => panic!("no message of a stream copies"),
        },
        Some(Message::Chunk(chunk)) => {
            assert!(i64::try_from(chunk.offset).is_ok());
        }
        Some(Message::CopyObject | Message::CopyPart(_) | Message::FinishCopy(_)) => {
            panic!("no message of a stream copies");
        }
        Some(Message::Piece(_) | Message::ChunkEnd(_) | Message::Void) => {
            panic!("the message is whole");
        }
        Some(Message::Finish(finish)) => {
            assert!(
                finish
                    .file_size
                    .is_none_or(|size| i64::try_from(size).is_ok())
            );
        }
        None => {}
    }
}

/// The messages of a stream are read as prost decodes them, wherever their bytes are cut. The first byte says how: into pieces of
/// that size. Each message begins with its length in two bytes; a chunk precedes them.
pub fn stream_frames(bytes: &[u8]) {
    let mut input = Input(bytes);
    let cut = usize::from(input.byte()).max(1);
    let mut messages = vec![FIRST_CHUNK.to_vec()];
    while !input.0.is_empty() {
        let length = usize::from(input.byte()) << 8 | usize::from(input.byte());
        let (message, rest) = input.0.split_at(length.min(input.0.len()));
        messages.push(message.to_vec());
        input.0 = rest;
    }
    reads_as_prost(&messages, cut);
}

/// Panics unless `messages`, whose frames are cut into pieces of `cut` bytes, are read as prost decodes them.
pub(crate) fn reads_as_prost(messages: &[Vec<u8>], cut: usize) {
    let frames: Vec<u8> = messages
        .iter()
        .flat_map(|message| {
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            [&[0][..], &length.to_be_bytes(), message].concat()
        })
        .collect();
    let expected: Vec<_> = messages
        .iter()
        .map(|message| v1::UploadRequest::decode(&**message).ok())
        .collect();
    let frames = Bytes::from(frames);
    let (mut reader, mut found, mut pieces) = (Reader::default(), Vec::new(), Vec::new());
    for begin in (0..frames.len()).step_by(cut) {
        reader.push(frames.slice(begin..frames.len().min(begin + cut)));
        loop {
            found.push(match reader.next() {
                Ok(None) => break,
                Ok(Some(Read::Message(request))) => {
                    assert!(pieces.is_empty(), "a chunk without an end");
                    Some(request)
                }
                Ok(Some(Read::Piece(piece))) => {
                    assert!(!piece.is_empty());
                    pieces.push(piece);
                    continue;
                }
                Ok(Some(Read::ChunkEnd(chunk))) => {
                    let data = mem::take(&mut pieces).concat().into();
                    let chunk = v1::Chunk { data, ..chunk };
                    let message = Some(v1::upload_request::Message::Chunk(chunk));
                    Some(v1::UploadRequest { message })
                }
                Ok(Some(Read::Void)) => {
                    assert!(!mem::take(&mut pieces).is_empty());
                    continue;
                }
                Err(_) => {
                    pieces.clear();
                    None
                }
            });
        }
    }
    assert!(!reader.is_within_message());
    assert_eq!(found, expected, "{messages:?}");
}

/// The same as [`stream_message`] for the other calls. The first byte selects one.
pub fn unary_request(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (choice, bytes) = (input.byte(), input.0);
    match choice % 8 {
        0 => {
            let accepted = read(bytes, signing::file_to_check);
            accepted.iter().for_each(converts_back);
        }
        1 => {
            let accepted = read(bytes, signing::file_to_create);
            accepted.iter().for_each(converts_back);
        }
        2 => {
            let accepted = read(bytes, signing::report);
            if let Some((id, report, next)) = accepted {
                is_canonical(&id);
                assert!(report.claims.iter().all(|claim| claim.number > 0));
                assert_ne!(report.resumable_id.as_deref(), Some(""));
                assert!(!matches!(next, Next::Part(part) if part.number == 0));
            }
        }
        3 => {
            let accepted = read(bytes, |request: v1::SignPartRequest| {
                signing::part_to_sign(request.part, &request.file_id)
            });
            assert!(accepted.is_none_or(|part| part.number > 0));
        }
        4 => {
            let accepted = read(bytes, |request: v1::SignDownloadRequest| {
                signing::download_lifetime(request.expiry_minutes)
            });
            assert!(accepted.is_none_or(|lifetime| !lifetime.is_zero()));
        }
        5 => {
            let accepted = read(bytes, |request: v1::GetUploadRequest| {
                convert::upload_id("upload_id", &request.upload_id)
            });
            accepted.iter().for_each(is_canonical);
        }
        6 => {
            let accepted = read(bytes, convert::listing::search);
            if let Some((_, start, size)) = accepted {
                assert!((1..=1_000).contains(&size));
                let token = convert::page_token(start.after.as_ref());
                assert_eq!(convert::cursor(&token).ok(), Some(start.after));
            }
        }
        _ => {
            let accepted = read(bytes, |request: v1::ListPartsRequest| {
                convert::upload_id("upload_id", &request.upload_id)?;
                convert::part_cursor(&request.page_token)
            });
            let _: Option<u32> = accepted;
        }
    }
}

/// The record as callers read it.
pub fn shown(upload: &Upload) -> v1::Upload {
    convert::upload(upload)
}

fn read<M: prost::Message + Default, T: Debug>(
    bytes: &[u8],
    convert: impl Fn(M) -> Result<T>,
) -> Option<T> {
    checked(convert(M::decode(bytes).ok()?))
}

fn checked<T>(converted: Result<T>) -> Option<T> {
    converted.map_err(|error| check_error(&error)).ok()
}

fn check_error(error: &Error) {
    let kind = error.kind();
    let is_of_client = matches!(kind, Kind::InvalidArgument | Kind::NotFound);
    assert!(is_of_client, "{kind:?} {error}");
    let _ = grpc_status(error);
}

/// Whether an id has the documented form.
fn is_canonical(id: &UploadId) {
    let text = id.as_str();
    assert!(
        text.len() == 57 && *text == text.to_ascii_lowercase(),
        "{text}"
    );
}

fn converts_back((file, storage_id): &(FileMetadata, String)) {
    let shown = convert::upload(&upload_of(file.clone(), storage_id.clone()));
    let again = signing::file_to_create(v1::CreateUploadRequest { file: shown.file });
    let expected = (file.clone(), storage_id.clone());
    assert_eq!(again.ok(), Some(expected));
}
