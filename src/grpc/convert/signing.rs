//! The messages of `SigningService`.

use std::{collections::HashMap, time::Duration};

use upload_gateway_client::proto::v1;
use upload_gateway_core::{
    blobs::sign::SignedRequest,
    error::{Error, Result},
    gateway::{DOWNLOAD_LIFETIME, KnownPart, Next, PartToSign, Report, SignedStep, StepType},
    upload::{Claim, FileMetadata, StoreKind},
};

use super::{bytes, digest, file_metadata, number, residence, size};

/// A file that is to be checked but not created, and its storage.
pub(in crate::grpc) fn file_to_check(
    request: v1::GetResidenceRequest,
) -> Result<(FileMetadata, String)> {
    let file = FileMetadata {
        file_name: request.file_name,
        file_size: Some(size("file_size", request.file_size)?),
        file_mime: request.file_mime,
        ..FileMetadata::default()
    };
    Ok((file, request.storage_id))
}

/// A file that is to be created, and its storage.
pub(in crate::grpc) fn file_to_create(
    request: v1::CreateUploadRequest,
) -> Result<(FileMetadata, String)> {
    let file = request
        .file
        .ok_or_else(|| Error::invalid("file", "must be set"))?;
    let storage_id = file.storage_id.clone();
    Ok((file_metadata(file)?, storage_id))
}

/// What a client reports, and the step that it requests.
pub(in crate::grpc) fn report(request: v1::UpdateUploadRequest) -> Result<(Report, Next)> {
    use v1::update_upload_request::Next as Wire;
    let next = match request.next {
        Some(Wire::Part(part)) => Next::Part(part_to_sign(part.part, &part.file_id)?),
        Some(Wire::Finish(())) => Next::Finish,
        None => Next::Nothing,
    };
    let listed = request.part_list.into_iter().map(|part| {
        Ok(Claim {
            number: part_number("part_list", part)?,
            md5: None,
            signed_for: None,
        })
    });
    let described = request.part_data.into_iter().map(|part| {
        Ok(Claim {
            number: part_number("part_data", part.part)?,
            md5: match part.md5.as_str() {
                "" => None,
                text => Some(digest("part_data", text)?),
            },
            signed_for: None,
        })
    });
    Ok((
        Report {
            resumable_id: Some(request.resumable_id).filter(|id| !id.is_empty()),
            claims: listed.chain(described).collect::<Result<_>>()?,
        },
        next,
    ))
}

/// A part that is to be signed. Both its number and its MD5 must be set.
pub(in crate::grpc) fn part_to_sign(part: i32, file_id: &str) -> Result<PartToSign> {
    if file_id.is_empty() {
        return Err(Error::invalid("file_id", "must be the MD5 of the part"));
    }
    Ok(PartToSign {
        number: part_number("part", part)?,
        md5: digest("file_id", file_id)?,
    })
}

/// How long a signed download is valid.
pub(in crate::grpc) fn download_lifetime(minutes: i32) -> Result<Duration> {
    let longest = DOWNLOAD_LIFETIME.as_secs() / 60;
    match u64::try_from(minutes) {
        Ok(0) => Ok(DOWNLOAD_LIFETIME),
        Ok(minutes) if minutes <= longest => Ok(Duration::from_secs(minutes * 60)),
        _ => Err(Error::invalid(
            "expiry_minutes",
            format!("must be 0 to {longest}"),
        )),
    }
}

/// The kind of the store that would take a file.
pub(in crate::grpc) fn residence_response(kind: StoreKind) -> v1::GetResidenceResponse {
    v1::GetResidenceResponse {
        residence: residence(kind).into(),
    }
}

/// One signed step.
pub(in crate::grpc) fn step(mut step: SignedStep) -> v1::SignedStep {
    let body = step.request.body.take();
    v1::SignedStep {
        r#type: step_type(step.kind).into(),
        signature: Some(signature(step.request)),
        upload_id: step.upload_id.to_string(),
        residence: residence(step.store_kind).into(),
        body,
        part_list: step.parts.iter().map(|part| number(part.number)).collect(),
        part_data: step.parts.iter().map(known_part).collect(),
        part_size: bytes(step.part_size),
    }
}

/// A signed request.
pub(in crate::grpc) fn signature(request: SignedRequest) -> v1::Signature {
    let headers = request.headers.into_iter();
    v1::Signature {
        verb: request.verb.to_owned(),
        url: request.url,
        headers: headers
            .map(|(name, value)| (name.into_owned(), value))
            .collect::<HashMap<_, _>>(),
    }
}

fn known_part(part: &KnownPart) -> v1::Part {
    v1::Part {
        part: number(part.number),
        md5: part.md5.map(|md5| md5.to_string()).unwrap_or_default(),
        size: bytes(part.size),
        offset: bytes(part.offset),
    }
}

fn step_type(kind: StepType) -> v1::StepType {
    match kind {
        StepType::DirectUpload => v1::StepType::DirectUpload,
        StepType::ChunkedUpload => v1::StepType::ChunkedUpload,
        StepType::Parts => v1::StepType::Parts,
        StepType::PartUpload => v1::StepType::PartUpload,
        StepType::Finish => v1::StepType::Finish,
    }
}

fn part_number(field: &'static str, part: i32) -> Result<u32> {
    match u32::try_from(part) {
        Ok(0) | Err(_) => Err(Error::invalid(field, "parts are numbered from 1")),
        Ok(part) => Ok(part),
    }
}
