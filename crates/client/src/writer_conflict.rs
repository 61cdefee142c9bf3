//! Who is in the way of a try: another sender, or a stream of its own sender, of an earlier try that broke.
//!
//! A gateway may not have seen the end of such a stream yet, or even get to its beginning late, and take over. Opening
//! again without taking over tells the two apart: a stream that nobody sends ends, or is soon taken for dead.

use std::mem;

use tokio::time::Instant;

use super::{ClientError, Refusal};
use crate::proto::v1::{ErrorReason, Takeover};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct WriterConflict {
    /// An earlier try has failed.
    may_be_own: bool,
    /// What this sender was told when it was taken over.
    taken_over: Option<Refusal>,
    /// When a stream that is dead no longer counts as at work.
    known_by: Option<Instant>,
}

// === impl WriterConflict ===

impl WriterConflict {
    /// Notes why a try failed. Of what comes back, `TAKEN_OVER` and `WRITER_ACTIVE` may be its own sender's doing: then
    /// another try finds out.
    ///
    /// # Errors
    /// The failure, or the one that it began with, when it is another sender's doing.
    pub(super) fn classify(&mut self, failure: ClientError) -> Result<ClientError, ClientError> {
        let may_be_own = mem::replace(&mut self.may_be_own, true);
        let ClientError::Refused(refusal) = &failure else {
            return Ok(failure);
        };
        match refusal.reason {
            Some(ErrorReason::TakenOver | ErrorReason::WriterActive) if !may_be_own => {
                return Err(failure);
            }
            Some(ErrorReason::TakenOver) => self.taken_over = Some(refusal.clone()),
            Some(ErrorReason::WriterActive) => {
                let now = Instant::now();
                let dead_by = now + refusal.retry_delay.unwrap_or_default();
                if now >= *self.known_by.get_or_insert(dead_by) {
                    return Err(self.taken_over.take().map_or(failure, Into::into));
                }
            }
            _ => {}
        }
        Ok(failure)
    }

    /// How the next try takes over, where `asked` is how the first one did.
    pub(super) fn takeover(&self, asked: Takeover) -> Takeover {
        match self.taken_over {
            Some(_) => Takeover::Forbid,
            None => asked,
        }
    }

    /// Notes that nobody was in the way.
    pub(super) fn is_gone(&mut self) {
        (self.taken_over, self.known_by) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use tokio::time::sleep;
    use tonic::Code;

    use super::*;

    fn refused(reason: impl Into<Option<ErrorReason>>) -> ClientError {
        let reason = reason.into();
        Refusal {
            code: Code::Unknown,
            reason,
            reason_name: reason.map_or("", ErrorReason::name).into(),
            message: String::new(),
            metadata: HashMap::new(),
            retry_delay: Some(Duration::from_secs(60)),
        }
        .into()
    }

    #[test]
    fn a_sender_with_a_single_stream_was_taken_over_by_another_one() {
        for reason in [ErrorReason::TakenOver, ErrorReason::WriterActive] {
            assert!(WriterConflict::default().classify(refused(reason)).is_err());
        }
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
        conflict.is_gone();
        assert_eq!(conflict.takeover(Takeover::Force), Takeover::Force);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_at_work_for_longer_than_the_dead_seem_to_be_is_another_sender() {
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
