//! One writer: how a stream becomes an upload's writer, shows that it is active, learns of a takeover, and leaves.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        message::Takeover,
        records::{Fence, Records},
    },
    state::{Predecessor, TakeoverWatch},
    upload::{Event, Timestamp, Upload, UploadId, WriterTag},
};

/// How long a stream that ends waits for the record to be updated: no caller waits for an unavailable state store.
const LEAVE: Duration = Duration::from_secs(1);

/// Sends heartbeats beside a stream that writes, and watches for a takeover.
#[derive(Debug)]
pub(super) struct WriterHeartbeat {
    pub(super) records: Arc<Records>,
    pub(super) idle_timeout: Duration,
    pub(super) upload_id: UploadId,
    /// The record's version when the stream took it over.
    pub(super) version: u64,
    pub(super) writer: WriterTag,
    pub(super) takeovers: TakeoverWatch,
}

// === impl WriterHeartbeat ===

impl WriterHeartbeat {
    /// Returns when the record has another writer, or is lost. Until then it gets three heartbeats per idle time-out, so that
    /// the upload counts as active and does not expire while no part of it can be recorded.
    pub(super) async fn fenced(&mut self) -> Error {
        let interval = self.records.heartbeat_interval().min(self.idle_timeout / 3);
        loop {
            tokio::select! {
                () = self.takeovers.by_another_than(self.writer) => {}
                () = sleep(interval) => {}
            }
            let heartbeat =
                self.records
                    .record_parts(&self.upload_id, self.version, self.writer, &[]);
            match heartbeat.await {
                Err(error) if matches!(error.reason(), Reason::TakenOver | Reason::StateLost) => {
                    return error;
                }
                // The stream knows of its own commit, and learns of another phase with its next part.
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(upload_id = %self.upload_id, %error, "no heartbeat was recorded");
                }
            }
        }
    }
}

/// Which writer a stream may replace that opens `upload` at `now`.
///
/// # Errors
/// `FailedPrecondition`, `WriterActive`, if it may not take over and another stream is active.
pub(super) fn predecessor(
    upload: &Upload,
    takeover: Takeover,
    now: Timestamp,
    idle_timeout: Duration,
) -> Result<Predecessor> {
    if takeover == Takeover::Force {
        return Ok(Predecessor::Any);
    }
    let active_until = upload.updated_at.plus(idle_timeout).0;
    let left = active_until.saturating_sub(now.0);
    if upload.writer.is_some() && left > 0 {
        return Err(writer_active(Duration::from_millis(left)));
    }
    Ok(Predecessor::Only(upload.writer))
}

/// Removes a stream that has ended from the record, so that a stream that may not take over need not wait for it. Best
/// effort.
pub(super) async fn leave(records: &Records, upload: &mut Upload) {
    let upload_id = upload.id.clone();
    let left = records.transition(upload, &Event::WriterLeft, Fence::Writer);
    match timeout(LEAVE, left).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%upload_id, %error, "the writer stays in the record"),
        Err(_) => tracing::debug!(%upload_id, "the writer stays in the record"),
    }
}

/// The refusal of a stream that may not take over from another one, which counts as active for `left`.
pub(super) fn writer_active(left: Duration) -> Error {
    Error::new(
        Kind::FailedPrecondition,
        Reason::WriterActive,
        "another stream is active on this upload; try again when it has ended, or allow a takeover",
    )
    .retry_after(left)
}
