//! The messages of `SigningService`.

use std::{collections::HashMap, time::Duration};

use upload_gateway_client::proto::v1;
use upload_gateway_core::{
    blobs::sign::SignedRequest,
    error::{All, Error, Result, each},
    gateway::{DOWNLOAD_LIFETIME, KnownPart, Next, PartToSign, Report, SignedStep, StepType},
    upload::{Claim, FileMetadata, Md5, StoreKind, UploadId, policy},
};

use super::{bytes, digest, file_metadata, number, residence, size, upload_id};

/// What is wrong with the number of a part.
const FROM_1: &str = "parts are numbered from 1";

/// A file that is to be checked but not created, and its storage.
pub(in crate::grpc) fn file_to_check(
    request: v1::GetResidenceRequest,
) -> Result<(FileMetadata, String)> {
    let file_size = size("file.file_size", request.file_size);
    let file = FileMetadata {
        file_name: request.file_name,
        file_size: file_size.as_ref().ok().copied(),
        file_mime: request.file_mime,
        ..FileMetadata::default()
    };
    (file_size, policy::check_signed(&file)).all()?;
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
    Ok((file_metadata(file, policy::check_signed)?, storage_id))
}

/// An upload, what a client reports of it, and the step that it requests.
pub(in crate::grpc) fn report(
    request: v1::UpdateUploadRequest,
) -> Result<(UploadId, Report, Next)> {
    use v1::update_upload_request::Next as Wire;
    let next = match request.next {
        Some(Wire::Part(part)) => part_to_sign(part.part, &part.file_id)
            .map(Next::Part)
            .map_err(|error| error.within("part")),
        Some(Wire::Finish(())) => Ok(Next::Finish),
        None => Ok(Next::Nothing),
    };
    let listed = request.part_list.into_iter().enumerate();
    let listed = listed.map(|(index, part)| {
        let number = part_number(part);
        number
            .map(|number| claim(number, None))
            .ok_or_else(|| Error::invalid(format!("part_list[{index}]"), FROM_1))
    });
    let described = request.part_data.iter().enumerate();
    let described = described.map(|(index, part)| {
        let number = part_number(part.part).ok_or_else(|| Error::invalid("part", FROM_1));
        let md5 = Some(part.md5.as_str()).filter(|text| !text.is_empty());
        let md5 = md5.map(|text| digest("md5", text)).transpose();
        let claimed = (number, md5).all().map(|(number, md5)| claim(number, md5));
        claimed.map_err(|error| error.within(&format!("part_data[{index}]")))
    });
    let (id, claims, next) = (
        upload_id("upload_id", &request.upload_id),
        each(listed.chain(described)),
        next,
    )
        .all()?;
    let report = Report {
        resumable_id: Some(request.resumable_id).filter(|id| !id.is_empty()),
        claims,
    };
    Ok((id, report, next))
}

/// A part that is to be signed. Both its number and its MD5 must be set.
pub(in crate::grpc) fn part_to_sign(part: i32, file_id: &str) -> Result<PartToSign> {
    let number = part_number(part).ok_or_else(|| Error::invalid("part", FROM_1));
    let md5 = match file_id {
        "" => Err(Error::invalid("file_id", "must be the MD5 of the part")),
        text => digest("file_id", text),
    };
    let (number, md5) = (number, md5).all()?;
    Ok(PartToSign { number, md5 })
}

/// The parts that are to be signed.
pub(in crate::grpc) fn parts_to_sign(parts: &[v1::PartRef]) -> Result<Vec<PartToSign>> {
    each(parts.iter().enumerate().map(|(index, part)| {
        let part = part_to_sign(part.part, &part.file_id);
        part.map_err(|error| error.within(&format!("parts[{index}]")))
    }))
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
        crc64nvme: part.crc64nvme.map(|crc64| crc64.0),
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

fn claim(number: u32, md5: Option<Md5>) -> Claim {
    Claim {
        number,
        md5,
        signed_for: None,
    }
}

/// The number of a part. `None`: it is less than 1.
fn part_number(part: i32) -> Option<u32> {
    u32::try_from(part).ok().filter(|&number| number > 0)
}
