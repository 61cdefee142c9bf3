//! Lines on standard output and standard error, and records in JSON.

use std::{
    fmt,
    io::{self, Write},
};

use console::{Term, style};
use serde_json::{Value, json};
use upload_gateway_client::{
    Crc64Nvme,
    proto::v1::{Phase, Upload},
};
use upload_gateway_core::escape::escaped;

use super::{error::CliError, human};

/// Prints a line of data to standard output.
pub(super) fn data(line: impl fmt::Display) -> Result<(), CliError> {
    write(format!("{line}\n").as_bytes())
}

/// Prints bytes to standard output.
pub(super) fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    output
        .write_all(bytes)
        .and_then(|()| output.flush())
        .map_err(|error| CliError::input_output("write to standard output", error))
}

/// Prints a line for people to standard error. It may contain text of a server.
pub(super) fn log(line: impl fmt::Display) {
    // A failure to report has nowhere to be reported.
    let line = line.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", escaped(&line));
}

/// Prints an error to standard error. It may contain text of a server.
pub(super) fn error(text: &str) {
    let error = style("error:").for_stderr().red().bold();
    // A failure to report has nowhere to be reported.
    let _ = writeln!(io::stderr().lock(), "{error} {}", escaped(text));
}

/// A record as JSON, with the field names of the proto.
pub(super) fn record(upload: &Upload) -> Value {
    let file = upload.file.clone().unwrap_or_default();
    let object = upload.object.as_ref().map(|object| {
        json!({
            "bucket": object.bucket,
            "key": object.key,
            "etag": object.etag,
            "size": object.size,
            "md5": object.md5,
            "crc64nvme": object.crc64nvme.map(|crc64| Crc64Nvme(crc64).to_string()),
        })
    });
    json!({
        "upload_id": upload.upload_id,
        "phase": phase(upload),
        "owner": upload.owner,
        "file_name": file.file_name,
        "file_size": file.file_size,
        "file_mime": file.file_mime,
        "tags": file.tags,
        "storage_id": upload.storage_id,
        "part_size": upload.part_size,
        "committed_size": upload.committed_size,
        "parts": upload.part_count,
        "created_at": upload.created_at.map(|time| time.to_string()),
        "updated_at": upload.updated_at.map(|time| time.to_string()),
        "expires_at": upload.expires_at.map(|time| time.to_string()),
        "object": object,
    })
}

/// An upload's phase, `OPEN`.
pub(super) fn phase(upload: &Upload) -> &'static str {
    let name = Phase::try_from(upload.phase).map_or("UNKNOWN", |phase| phase.as_str_name());
    name.strip_prefix("PHASE_").unwrap_or(name)
}

/// The name of an upload's file.
pub(super) fn name(upload: &Upload) -> &str {
    upload.file.as_ref().map_or("", |file| &file.file_name)
}

/// An upload's file for a question, "a.bin (uploads-…, 12.0 MiB)".
pub(super) fn file(upload: &Upload) -> String {
    let size = upload.file.as_ref().and_then(|file| file.file_size);
    let size = human::size(size.unwrap_or(upload.committed_size));
    let name = escaped(name(upload));
    format!("{name} ({}, {size})", upload.upload_id)
}

/// The width of the terminal that standard output is, in columns. `None` if it is not a terminal: then nothing is cut.
pub(super) fn width() -> Option<usize> {
    let terminal = Term::stdout();
    terminal.is_term().then(|| usize::from(terminal.size().1))
}
