//! Malformed and hostile messages.

use std::fmt::Debug;

use prost::Message as _;
use upload_gateway_client::proto::v1;
use upload_gateway_core::{
    error::{Error, Kind, Result},
    gateway::{Message, Next, Target},
    upload::{FileMetadata, Upload, UploadId},
};

use super::convert::{self, signing};
use crate::{
    fuzzing::{Input, upload_of},
    status::grpc_status,
};

/// An accepted message respects the limits, and its file is the same after it is written and read again; every refusal
/// blames the request.
pub fn stream_message(bytes: &[u8]) {
    let Ok(request) = v1::UploadRequest::decode(bytes) else {
        return;
    };
    match checked(convert::message(request)) {
        Some(Message::Open(open)) => match open.target {
            Target::File { file, storage_id } => is_kept(&(file, storage_id)),
            Target::Upload(id) => is_name(&id),
        },
        Some(Message::Chunk(chunk)) => {
            assert!(i64::try_from(chunk.offset).is_ok());
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

/// As [`stream_message`], for the other calls; the first byte selects one.
pub fn unary_request(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (choice, bytes) = (input.byte(), input.0);
    match choice % 7 {
        0 => {
            let taken = read(bytes, signing::file_to_place);
            taken.iter().for_each(is_kept);
        }
        1 => {
            let taken = read(bytes, signing::file_to_create);
            taken.iter().for_each(is_kept);
        }
        2 => {
            let taken = read(bytes, signing::report);
            if let Some((report, next)) = taken {
                assert!(report.claims.iter().all(|claim| claim.number > 0));
                assert_ne!(report.resumable_id.as_deref(), Some(""));
                assert!(!matches!(next, Next::Part(part) if part.number == 0));
            }
        }
        3 => {
            let taken = read(bytes, |request: v1::SignPartRequest| {
                signing::part_to_sign(request.part, &request.file_id)
            });
            assert!(taken.is_none_or(|part| part.number > 0));
        }
        4 => {
            let taken = read(bytes, |request: v1::SignDownloadRequest| {
                signing::download_lifetime(request.expiry_minutes)
            });
            assert!(taken.is_none_or(|lifetime| !lifetime.is_zero()));
        }
        5 => {
            let taken = read(bytes, |request: v1::GetUploadRequest| {
                convert::upload_id(&request.upload_id)
            });
            taken.iter().for_each(is_name);
        }
        _ => {
            let taken = read(bytes, |request: v1::ListUploadsRequest| {
                convert::phase_filter(request.phase)?;
                let size = convert::page_size(request.page_size)?;
                Ok((size, convert::cursor(&request.page_token)?))
            });
            if let Some((size, cursor)) = taken {
                assert!((1..=1000).contains(&size));
                let token = convert::page_token(cursor.as_ref());
                assert_eq!(convert::cursor(&token).ok(), Some(cursor));
            }
        }
    }
}

/// The record as callers see it.
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
    converted.map_err(|error| is_refused(&error)).ok()
}

fn is_refused(error: &Error) {
    let kind = error.kind();
    let is_callers = matches!(kind, Kind::InvalidArgument | Kind::NotFound);
    assert!(is_callers, "{kind:?} {error}");
    let _ = grpc_status(error);
}

/// As the documentation of upload ids says.
fn is_name(id: &UploadId) {
    let text = id.as_str();
    assert!(
        text.len() == 57 && *text == text.to_ascii_lowercase(),
        "{text}"
    );
}

fn is_kept((file, storage_id): &(FileMetadata, String)) {
    let shown = convert::summary(&upload_of(file.clone(), storage_id.clone()));
    let again = signing::file_to_create(v1::CreateUploadRequest { file: shown.file });
    let kept = (file.clone(), storage_id.clone());
    assert_eq!(again.ok(), Some(kept));
}
