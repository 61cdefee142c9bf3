//! What a direct upload can do next, and what the client is shown of its parts.

use std::collections::BTreeMap;

use super::step::KnownPart;
use crate::{
    error::{Error, Reason, Result},
    gateway::{
        refusal::{NAMED_PARTS, missing_parts, wrong_phase},
        storage::Storage,
    },
    upload::{Part, Phase, Present, SINGLE_PUT_MAX, Span, Upload},
};

/// Whether the client puts the file whole: it is small, and no part of it was sent. If a request creates sessions, no
/// part can have been sent without one, whatever was claimed.
pub(super) fn is_direct(storage: &Storage, upload: &Upload) -> bool {
    let is_small = upload
        .file
        .file_size
        .is_some_and(|size| size <= SINGLE_PUT_MAX);
    let needs_session = storage.capabilities().creates_sessions;
    is_small && upload.session.is_none() && (needs_session || upload.claims.is_empty())
}

/// A part that the store has, as it is shown to the client. If the store lists MD5s, a claimed MD5 that differs from
/// the stored one is left out, so that the client sends the part again.
pub(super) fn to_known_part(storage: &Storage, upload: &Upload, part: &Part) -> KnownPart {
    let claimed = upload.claims.md5(part.number);
    // An ETag that looks like an MD5 is one if it is the claimed MD5.
    let is_listed = storage.capabilities().lists_part_digests;
    let claimed = claimed.filter(|md5| !is_listed || part.probable_md5() == Some(*md5));
    KnownPart {
        md5: part.md5().or(claimed),
        ..KnownPart::from(part)
    }
}

/// The recorded parts, and the claimed ones that are not recorded.
pub(super) fn known_parts(upload: &Upload) -> Vec<KnownPart> {
    let recorded = upload.parts.iter().map(|part| (part.number, part.into()));
    let claimed = upload.claims.iter().filter_map(|claim| {
        let Span { offset, size } = upload.span(claim.number)?;
        let part = KnownPart {
            number: claim.number,
            offset,
            size,
            md5: claim.md5,
            crc64nvme: None,
        };
        Some((claim.number, part))
    });
    let known: BTreeMap<u32, KnownPart> = claimed.chain(recorded).collect();
    known.into_values().collect()
}

pub(super) fn part_count(upload: &Upload) -> Result<u32> {
    upload.part_count().ok_or_else(|| {
        Error::precondition(
            Reason::SizeUnknown,
            "the upload was created without file_size; only a stream can continue it",
        )
    })
}

pub(super) fn check_open(upload: &Upload) -> Result<()> {
    if upload.phase == Phase::Open {
        return Ok(());
    }
    Err(wrong_phase(upload.phase))
}

/// Requests for parts name the session, if the client must create it with a request.
///
/// # Errors
///
/// `FailedPrecondition` if it does not exist yet.
pub(super) fn check_session(storage: &Storage, upload: &Upload) -> Result<()> {
    if upload.session.is_some() || !storage.capabilities().creates_sessions {
        return Ok(());
    }
    Err(Error::precondition(
        Reason::SessionNotStarted,
        "send the signed chunked_upload first, and report the store's UploadId as resumable_id",
    ))
}

/// The error of an upload of which the store has only these parts, and no object.
pub(super) fn incomplete(upload: &Upload, present: &Present) -> Error {
    if !present.misfits.is_empty() {
        let numbers = present.misfits.iter().take(NAMED_PARTS);
        let numbers: Vec<_> = numbers.map(u32::to_string).collect();
        let numbers = numbers.join(",");
        let message = format!(
            "the store has parts of different sizes: {numbers} do not fit the others; create the upload again and send all parts"
        );
        return Error::precondition(Reason::Incomplete, message).with("missing_parts", numbers);
    }
    if present.is_whole(upload.file.file_size) {
        let message = "the store has all parts; send the signed finish first";
        return Error::precondition(Reason::Incomplete, message);
    }
    let file_size = upload.file.file_size.unwrap_or(0);
    let planned = upload.planned(&present.plan);
    missing_parts(&planned, file_size, |number| {
        present.parts.contains_key(&number)
    })
}
