//! Whether the stream that blocks a try belongs to another sender, or to an earlier try of the same sender.
//!
//! The gateway may not have noticed yet that an earlier stream broke, or it opens that stream late and lets it take over.
//! An open with `TAKEOVER_FORBID` finds out: a stream without a sender soon ends, or no longer counts as active.

use std::mem;

use tokio::time::Instant;

use crate::{
    error::{ClientError, Refusal},
    proto::v1::{ErrorReason, Takeover},
};

/// What is known of the other stream.
#[derive(Debug, Default)]
pub(super) struct WriterConflict {
    /// An earlier try has failed: the other stream may be that one.
    may_be_own: bool,
    /// The error of the try that was taken over.
    taken_over: Option<Refusal>,
    /// When a broken stream no longer counts as active.
    expires_at: Option<Instant>,
}

/// Whether another stream, of this sender or of another one, caused the failure. UNAVAILABLE with `WRITER_ACTIVE` is not a
/// conflict: callers changed the record at the same time, and the same call may succeed.
pub(super) fn is_conflict(failure: &ClientError) -> bool {
    let names_writer = matches!(
        failure.reason(),
        Some(ErrorReason::TakenOver | ErrorReason::WriterActive)
    );
    names_writer && !failure.is_resumable()
}

// === impl WriterConflict ===

impl WriterConflict {
    /// Records why a try failed. If an earlier try of this sender can be the cause, another try finds out.
    ///
    /// # Errors
    /// The failure, or the one that the conflict started with, if another sender is the cause.
    pub(super) fn classify(&mut self, failure: ClientError) -> Result<ClientError, ClientError> {
        let may_be_own = mem::replace(&mut self.may_be_own, true);
        let ClientError::Refused(refusal) = &failure else {
            return Ok(failure);
        };
        if !is_conflict(&failure) {
            return Ok(failure);
        }
        if !may_be_own {
            return Err(failure);
        }
        if refusal.reason == Some(ErrorReason::TakenOver) {
            self.taken_over = Some(refusal.clone());
            return Ok(failure);
        }
        let now = Instant::now();
        let expires_at = now + refusal.retry_delay.unwrap_or_default();
        if now >= *self.expires_at.get_or_insert(expires_at) {
            return Err(self.taken_over.take().map_or(failure, Into::into));
        }
        Ok(failure)
    }

    /// How the next try takes over, if the first one used `requested`.
    pub(super) fn takeover(&self, requested: Takeover) -> Takeover {
        match self.taken_over {
            Some(_) => Takeover::Forbid,
            None => requested,
        }
    }

    /// Records that a try has opened the upload.
    pub(super) fn clear(&mut self) {
        (self.taken_over, self.expires_at) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use tokio::time::sleep;
    use tonic::Code;

    use super::*;

    fn refused(reason: impl Into<Option<ErrorReason>>) -> ClientError {
        refused_with(Code::FailedPrecondition, reason.into())
    }

    fn refused_with(code: Code, reason: Option<ErrorReason>) -> ClientError {
        Refusal {
            code,
            reason,
            reason_name: reason.map_or("", ErrorReason::name).into(),
            message: String::new(),
            metadata: HashMap::new(),
            retry_delay: Some(Duration::from_secs(60)),
        }
        .into()
    }

    #[test]
    fn in_the_first_try_the_other_stream_belongs_to_another_sender() {
        for reason in [ErrorReason::TakenOver, ErrorReason::WriterActive] {
            assert!(WriterConflict::default().classify(refused(reason)).is_err());
        }
    }

    #[test]
    fn callers_that_change_the_record_at_the_same_time_are_no_conflict() {
        let reason = Some(ErrorReason::WriterActive);
        let unavailable = refused_with(Code::Unavailable, reason);
        assert!(!is_conflict(&unavailable));
        assert!(WriterConflict::default().classify(unavailable).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_broken_try_it_finds_out_without_taking_over() {
        let mut conflict = WriterConflict::default();
        conflict.classify(refused(None)).unwrap();
        assert_eq!(conflict.takeover(Takeover::Force), Takeover::Force);
        conflict.classify(refused(ErrorReason::TakenOver)).unwrap();
        assert_eq!(conflict.takeover(Takeover::Force), Takeover::Forbid);
        conflict
            .classify(refused(ErrorReason::WriterActive))
            .unwrap();
        sleep(Duration::from_secs(59)).await;
        conflict
            .classify(refused(ErrorReason::WriterActive))
            .unwrap();
        conflict.clear();
        assert_eq!(conflict.takeover(Takeover::Force), Takeover::Force);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_outlives_its_heartbeat_belongs_to_another_sender() {
        let mut conflict = WriterConflict::default();
        for reason in [
            None,
            Some(ErrorReason::TakenOver),
            Some(ErrorReason::WriterActive),
        ] {
            conflict.classify(refused(reason)).unwrap();
        }
        sleep(Duration::from_secs(60)).await;
        let reported = conflict
            .classify(refused(ErrorReason::WriterActive))
            .unwrap_err();
        assert_eq!(reported.reason(), Some(ErrorReason::TakenOver));
    }
}
