//! One writer: how a stream becomes an upload's writer, shows that it is at work, learns that it is fenced out, and leaves.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Fence, Gateway, message::Takeover};
use crate::{
    error::{Error, Kind, Reason, Result},
    state::{Predecessor, TakeoverWatch},
    upload::{Event, Upload, UploadId, WriterTag},
};

/// How long a stream that ends may take to say so in the record: nobody waits for a state store that is away.
const LEAVE: Duration = Duration::from_secs(1);

/// Looks out, beside a stream that writes, for another one that has taken its upload over.
#[derive(Debug)]
pub(super) struct WriterHeartbeat {
    pub(super) gateway: Arc<Gateway>,
    pub(super) upload_id: UploadId,
    /// The record's version when the stream took it over.
    pub(super) version: u64,
    pub(super) writer: WriterTag,
    pub(super) takeovers: TakeoverWatch,
}

// === impl WriterHeartbeat ===

impl WriterHeartbeat {
    /// Ends when the record has another writer, or is gone. Until then the record gets a sign of life three times in an idle
    /// time-out, so that the upload counts as active and does not expire while nothing of it can be recorded.
    pub(super) async fn fenced(&mut self) -> Error {
        let gateway = &self.gateway;
        let idle_timeout = gateway.settings.idle_timeout;
        let interval = gateway.heartbeat_interval().min(idle_timeout / 3);
        loop {
            tokio::select! {
                () = self.takeovers.by_another_than(self.writer) => {}
                () = sleep(interval) => {}
            }
            let sign = gateway.record_parts(&self.upload_id, self.version, self.writer, &[]);
            match sign.await {
                Err(error) if matches!(error.reason(), Reason::TakenOver | Reason::StateLost) => {
                    return error;
                }
                // Of its own commit the stream knows, and of another phase its next part.
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(upload_id = %self.upload_id, %error, "no sign of life");
                }
            }
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Whose place a stream may take that opens `upload`.
    ///
    /// # Errors
    /// `FailedPrecondition`, `WriterActive`, where it may not end another stream and one is at work.
    pub(super) fn predecessor(&self, upload: &Upload, takeover: Takeover) -> Result<Predecessor> {
        if takeover == Takeover::Force {
            return Ok(Predecessor::Any);
        }
        let active_until = upload.updated_at.plus(self.settings.idle_timeout).0;
        let left = active_until.saturating_sub(self.clock.now().0);
        if upload.writer.is_some() && left > 0 {
            return Err(writer_active(Duration::from_millis(left)));
        }
        Ok(Predecessor::Only(upload.writer))
    }

    /// Takes a stream that has ended out of the record, so that who may not take over need not wait for it. Best effort.
    pub(super) async fn leave(&self, upload: &mut Upload) {
        let upload_id = upload.id.clone();
        let left = self.transition(upload, &Event::WriterLeft, Fence::Writer);
        match timeout(LEAVE, left).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%upload_id, %error, "the writer stays in the record"),
            Err(_) => tracing::debug!(%upload_id, "the writer stays in the record"),
        }
    }
}

/// The refusal of a stream that may not end another one, which counts as at work for `left`.
pub(super) fn writer_active(left: Duration) -> Error {
    Error::new(
        Kind::FailedPrecondition,
        Reason::WriterActive,
        "another stream is at work on this upload; come back when it has ended, or allow taking over",
    )
    .retry_after(left)
}
