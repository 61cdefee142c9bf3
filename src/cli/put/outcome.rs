//! What became of the files: a line of data for each one, and a summary.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde_json::{Value, json};
use tonic::Code;
use upload_gateway_client::{ClientError, Uploaded, proto::v1::ErrorReason};

use super::files::Candidate;
use crate::cli::{
    error::{CliError, chain},
    human,
    progress::{self, Display},
};

/// Counts many files.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    sent: AtomicU64,
    were_complete: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
}

// === impl Outcomes ===

impl Outcomes {
    pub(super) fn sent(
        &self,
        display: &Display,
        file: &Candidate,
        uploaded: &Uploaded,
        json: bool,
    ) -> Result<(), CliError> {
        match uploaded.was_complete {
            true => self.were_complete.fetch_add(1, Relaxed),
            false => self.sent.fetch_add(1, Relaxed),
        };
        match json {
            true => display.data(record(file, uploaded)),
            false => display.data(place(uploaded)),
        }
    }

    pub(super) fn failed(
        &self,
        display: &Display,
        path: &Path,
        error: &CliError,
        json: bool,
    ) -> Result<(), CliError> {
        self.failed.fetch_add(1, Relaxed);
        let (path, text) = (path.display(), chain(error));
        display.log(format_args!("error: {path}: {text}"));
        match json {
            true => display.data(json!({"file": path.to_string(), "error": text})),
            false => Ok(()),
        }
    }

    pub(super) fn skipped(&self, display: &Display, path: &Path, why: &str) {
        self.skipped.fetch_add(1, Relaxed);
        display.log(format_args!("left out: {} {why}", path.display()));
    }

    /// Prints how many files were sent.
    pub(super) fn summarize(&self, display: &Display) {
        let (bytes, elapsed) = display.transferred();
        let size = human::size(i64::try_from(bytes).unwrap_or(i64::MAX));
        let rate = progress::rate(bytes, elapsed);
        let seconds = elapsed.as_secs_f64();
        let mut line = format!(
            "{} sent, {size} in {seconds:.1} s, {rate}",
            files(&self.sent)
        );
        for (count, what) in [
            (&self.were_complete, "complete before"),
            (&self.skipped, "left out"),
            (&self.failed, "failed"),
        ] {
            if count.load(Relaxed) > 0 {
                line += &format!("; {} {what}", files(count));
            }
        }
        display.log(line);
    }

    /// # Errors
    /// Some files were not sent.
    pub(super) fn result(&self) -> Result<(), CliError> {
        match self.failed.load(Relaxed) {
            0 => Ok(()),
            _ => {
                let failed = files(&self.failed);
                Err(CliError::failed(format!(
                    "{failed} not sent; the same command sends them again"
                )))
            }
        }
    }
}

/// Prints what became of the only file.
pub(super) fn show_one(
    display: &Display,
    file: &Candidate,
    uploaded: &Uploaded,
    json: bool,
) -> Result<(), CliError> {
    if json {
        return display.data(record(file, uploaded));
    }
    if uploaded.was_complete {
        display.log("complete before; --again sends it again");
    }
    if uploaded.resumed_from > 0 {
        display.log(format_args!("resumed from byte {}", uploaded.resumed_from));
    }
    let size = uploaded.size;
    match (uploaded.md5, uploaded.crc64nvme) {
        (Some(md5), _) => display.log(format_args!("{size} bytes, MD5 {md5}")),
        (None, Some(crc64)) => display.log(format_args!("{size} bytes, CRC64NVME {crc64}")),
        (None, None) => {}
    }
    display.data(place(uploaded))
}

/// Whether all other files would fail in the same way.
pub(super) fn ends_all(error: &CliError) -> bool {
    match error {
        CliError::Client(ClientError::NoProgress { .. } | ClientError::Connect(_)) => true,
        CliError::Client(ClientError::Refused(refusal)) => {
            let is_for_all = matches!(
                refusal.reason,
                Some(ErrorReason::StorageNotFound | ErrorReason::UploadsStopped)
            );
            is_for_all || matches!(refusal.code, Code::Unauthenticated | Code::PermissionDenied)
        }
        _ => false,
    }
}

fn record(file: &Candidate, uploaded: &Uploaded) -> Value {
    let upload = &uploaded.upload;
    let object = upload.object.clone().unwrap_or_default();
    json!({
        "file": file.path.display().to_string(),
        "upload_id": upload.upload_id,
        "storage_id": upload.storage_id,
        "bucket": object.bucket,
        "object_key": object.key,
        "size": uploaded.size,
        "md5": uploaded.md5.map(|md5| md5.to_string()),
        "crc64nvme": uploaded.crc64nvme.map(|crc64| crc64.to_string()),
        "resumed_from": uploaded.resumed_from,
        "was_complete": uploaded.was_complete,
    })
}

/// Where the object is.
fn place(uploaded: &Uploaded) -> String {
    let object = uploaded.upload.object.clone().unwrap_or_default();
    format!("{}/{}", object.bucket, object.key)
}

/// "1 file", "2 files".
fn files(count: &AtomicU64) -> String {
    match count.load(Relaxed) {
        1 => "1 file".into(),
        count => format!("{count} files"),
    }
}
