//! Errors that several use cases return.

use std::{fmt::Display, time::Duration};

use crate::{
    error::{Error, Kind, Reason},
    upload::{AbortReason, Phase, Upload, UploadId, object::Difference},
};

/// The largest number of missing parts in one error. The client learns of the others with its next call.
pub(super) const NAMED_PARTS: usize = 100;

/// When to repeat a create that had no room, about: uploads end one after the other.
const ROOM_DELAY: Duration = Duration::from_secs(10);

/// Another stream has taken over the upload.
pub(super) fn taken_over() -> Error {
    Error::new(
        Kind::Aborted,
        Reason::TakenOver,
        "a newer stream has taken over this upload",
    )
}

/// The state store lost the record, or has an older version of it than the stream opened.
pub(super) fn state_lost() -> Error {
    Error::new(
        Kind::Unavailable,
        Reason::StateLost,
        "the state store lost acknowledged writes; open again with the resume token",
    )
    .retry_after(Duration::from_millis(100))
}

/// The phase of the upload does not allow the request.
pub(super) fn wrong_phase(phase: Phase) -> Error {
    Error::precondition(Reason::WrongPhase, format!("the upload is {phase}")).with("phase", phase)
}

/// The file is larger than `max` bytes.
pub(super) fn too_large(max: u64) -> Error {
    Error::invalid(
        "file.file_size",
        format!("at most {max} bytes can be stored"),
    )
    .because(Reason::FileTooLarge)
    .with("max_file_size", max)
}

/// There are `max` open uploads or more, as many as the key `limit` allows.
pub(super) fn too_many_open(limit: &'static str, max: u64) -> Error {
    let message = format!(
        "there are limits.{limit}, {max}, open uploads; finish or delete some, or retry later"
    );
    Error::new(Kind::ResourceExhausted, Reason::Overloaded, message)
        .with("limit", limit)
        .with("max_open_uploads", max)
        .retry_after(ROOM_DELAY.mul_f64(rand::random_range(0.5..1.5)))
}

/// A part of `part_size` bytes is larger than a quarter of the memory budget, both in bytes.
pub(super) fn budget_too_small(part_size: u64, memory_budget: u64) -> Error {
    Error::precondition(
        Reason::BudgetTooSmall,
        format!(
            "the upload has parts of {part_size} bytes, too large for the memory budget of this gateway"
        ),
    )
    .with("part_size", part_size)
    .with("memory_budget", memory_budget)
}

/// The MD5 of the file is not the promised one.
pub(super) fn digest_mismatch(
    field: &str,
    digest: &str,
    (promised, received): (impl Display, impl Display),
) -> Error {
    let message = format!("the {digest} of the file does not match {field}");
    Error::new(Kind::DataLoss, Reason::DigestMismatch, message)
        .with("promised", promised)
        .with("received", received)
}

/// The store has other bytes than were recorded.
pub(super) fn replaced(message: &str) -> Error {
    Error::precondition(Reason::PartReplaced, message)
}

/// The store knows neither the session nor an object.
fn session_lost(message: &str) -> Error {
    Error::precondition(Reason::SessionLost, message)
}

/// The upload was aborted for this reason.
pub(super) fn aborted(reason: Option<AbortReason>) -> Error {
    let error = match reason {
        Some(AbortReason::SessionLost) => nothing_left(),
        Some(AbortReason::PartReplaced) => replaced("the store has other bytes than were recorded"),
        Some(AbortReason::DigestMismatch) => Error::new(
            Kind::DataLoss,
            Reason::DigestMismatch,
            "the digest of the file does not match the promised one",
        ),
        Some(
            AbortReason::Deleted
            | AbortReason::Restarted
            | AbortReason::Expired
            | AbortReason::CommitFailed,
        )
        | None => Error::precondition(
            Reason::WrongPhase,
            "the upload is aborted; create a new one",
        ),
    };
    error.with("phase", Phase::Aborted)
}

/// The store knows neither the session nor an object of the upload.
pub(super) fn nothing_left() -> Error {
    session_lost("the store knows neither session nor object")
}

/// The store reports too little about an object to decide whether the upload made it.
pub(super) fn too_little() -> Error {
    Error::store_unavailable("the store reports too little about the object")
}

/// The object under the upload's key was not made by the upload.
pub(super) fn not_own(difference: Difference) -> Error {
    match difference {
        Difference::Upload => replaced("the object under this key belongs to another upload"),
        Difference::Size(size) => {
            replaced("the size of the object differs from the size of the file")
                .with("object_size", size)
        }
        Difference::Md5 { expected, found } => digest_mismatch("file_id", "MD5", (expected, found)),
        Difference::Crc64Nvme => {
            replaced("the CRC64NVME of the object is not that of what was sent")
        }
        Difference::Parts => replaced("the object is made of other parts than were sent"),
        Difference::Encryption => replaced(
            "the object is not encrypted as the storage demands; send its headers as signed",
        ),
    }
}

/// The store does not have all parts of a file of `file_size` bytes.
pub(super) fn missing_parts(
    upload: &Upload,
    file_size: u64,
    is_stored: impl Fn(u32) -> bool,
) -> Error {
    let missing: Vec<String> = (1..)
        .map_while(|number| upload.span(number).map(|span| (number, span)))
        // An empty file has one part, too.
        .take_while(|(number, span)| *number == 1 || span.offset < file_size)
        .filter(|(number, _)| !is_stored(*number))
        .take(NAMED_PARTS)
        .map(|(number, _)| number.to_string())
        .collect();
    Error::precondition(Reason::Incomplete, "parts are missing")
        .with("missing_parts", missing.join(","))
}

/// The error for the id of an upload whose file has moved.
pub(super) fn moved(id: &UploadId, to: &UploadId) -> Error {
    let message = format!("the file of {id} has moved; its upload id is {to}");
    Error::new(Kind::NotFound, Reason::UploadMoved, message).with("moved_to", to)
}

/// The caller has disconnected and does not receive this error.
pub(super) fn client_gone() -> Error {
    let message = "the caller disconnected before its upload was open";
    Error::new(Kind::Cancelled, Reason::ClientGone, message)
}
