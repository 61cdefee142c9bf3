//! Refusals that several use cases answer with.

use std::time::Duration;

use crate::{
    error::{Error, Kind, Reason},
    upload::{Md5, Phase, Upload, object::Difference},
};

/// The most missing parts that one error names; the client learns of the others when it asks again.
const NAMED_PARTS: usize = 100;

/// The end of a stream whose upload another stream has taken over.
pub(super) fn taken_over() -> Error {
    Error::new(
        Kind::Aborted,
        Reason::TakenOver,
        "a newer stream has taken over this upload",
    )
}

/// The end of a stream whose record the state store lost, or has as it was before the stream opened it.
pub(super) fn state_lost() -> Error {
    Error::new(
        Kind::Unavailable,
        Reason::StateLost,
        "the state store lost acknowledged writes; open again with the resume token",
    )
    .retry_after(Duration::from_millis(100))
}

/// The upload's phase forbids the request.
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

/// The file is not the promised one.
pub(super) fn digest_mismatch(promised: Md5, received: Md5) -> Error {
    Error::new(
        Kind::DataLoss,
        Reason::DigestMismatch,
        "the file's MD5 is not the promised one",
    )
    .with("promised", promised)
    .with("received", received)
}

/// The store has other bytes than were recorded.
pub(super) fn replaced(message: &str) -> Error {
    Error::precondition(Reason::PartReplaced, message)
}

/// The store knows neither the session nor an object.
pub(super) fn session_lost(message: &str) -> Error {
    Error::precondition(Reason::SessionLost, message)
}

/// The object under the upload's key is not the upload's.
pub(super) fn not_own(difference: Difference) -> Error {
    match difference {
        Difference::Upload => replaced("the object under this key belongs to another upload"),
        Difference::Size(size) => {
            replaced("the object has another size than the file").with("object_size", size)
        }
        Difference::Md5 { expected, found } => digest_mismatch(expected, found),
        Difference::Parts => replaced("the object is made of other parts than were sent"),
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
