//! One writer: how a stream becomes the writer of an upload, sends heartbeats, notices a takeover, and leaves.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        message::{Counts, Takeover},
        records::{Fence, Records},
    },
    state::{Predecessor, TakeoverWatch},
    upload::{Event, Timestamp, Upload, UploadId, WriterTag},
};

/// How long a stream that ends waits for the update of the record. No caller waits for an unavailable state store here.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends the heartbeats of a stream that writes, and watches for a takeover.
#[derive(Debug)]
pub(super) struct WriterHeartbeat {
    pub(super) records: Arc<Records>,
    pub(super) idle_timeout: Duration,
    pub(super) upload_id: UploadId,
    /// The record's version when the stream took it over.
    pub(super) version: u64,
    pub(super) writer: WriterTag,
    pub(super) takeovers: TakeoverWatch,
    /// Changes when a part has been recorded.
    pub(super) counts: watch::Receiver<Counts>,
}

// === impl WriterHeartbeat ===

impl WriterHeartbeat {
    /// Returns when the record has another writer or is lost. Until then it sends three heartbeats per idle time-out,
    /// so that the upload counts as active and does not expire while no part of it can be recorded. A part that is recorded is as
    /// good as a heartbeat.
    pub(super) async fn fenced(&mut self) -> Error {
        let interval = self.records.heartbeat_interval().min(self.idle_timeout / 3);
        loop {
            tokio::select! {
                () = self.takeovers.by_other_than(self.writer) => {}
                () = sleep(interval) => {}
                Ok(()) = self.counts.changed() => continue,
            }
            let heartbeat =
                self.records
                    .record_parts(&self.upload_id, self.version, self.writer, &[]);
            match heartbeat.await {
                Err(error) if matches!(error.reason(), Reason::TakenOver | Reason::StateLost) => {
                    return error;
                }
                // The stream knows about its own commit, and notices another phase when it records its next part.
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(upload_id = %self.upload_id, %error, "a heartbeat was not recorded");
                }
            }
        }
    }
}

/// Which writer a stream that opens `upload` at the time `now` may replace.
///
/// # Errors
/// `FailedPrecondition` with `WriterActive` if takeovers are forbidden and another stream is active.
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

/// Removes a stream that has ended from the record, so that a stream without takeover need not wait for it. Best
/// effort.
pub(super) async fn leave(records: &Records, upload: &mut Upload) {
    let upload_id = upload.id.clone();
    let left = records.transition(upload, &Event::WriterLeft, Fence::Writer);
    match timeout(LEAVE_TIMEOUT, left).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%upload_id, %error, "an ended stream was not removed from the record")
        }
        Err(_) => tracing::debug!(%upload_id, "an ended stream was not removed from the record"),
    }
}

/// The error of a stream that must not take over from another one, which counts as active for `left`.
pub(super) fn writer_active(left: Duration) -> Error {
    Error::new(
        Kind::FailedPrecondition,
        Reason::WriterActive,
        "another stream is active on this upload; retry after it has ended, or allow a takeover",
    )
    .retry_after(left)
}
