//! What a sender keeps between two tries.

use std::{mem, time::Duration};

use super::{
    Target,
    prefix::UncheckedParts,
    writer_conflict::{WriterConflict, is_conflict},
};
use crate::{
    error::ClientError,
    proto::v1::{ErrorReason, Open, Phase, UploadProgress, open},
    resume::Saved,
    upload::UploadOptions,
};

/// What is known of an upload.
#[derive(Debug)]
pub(super) struct Known {
    /// The upload's id as soon as it is known.
    target: Target,
    resume_token: String,
    pub(super) committed_size: u64,
    /// Where the last resume continued; 0 if there was none.
    pub(super) resumed_from: u64,
    /// The gateway does not have the digest of the whole file to compare with.
    pub(super) lacks_digest: bool,
    pub(super) conflict: WriterConflict,
    /// Parts that were committed before this upload was called, until they are compared with the source.
    pub(super) unchecked: Option<UncheckedParts>,
    /// Where the upload is saved for other processes.
    saved: Option<Saved>,
}

// === impl Known ===

impl Known {
    /// Before the first try.
    pub(super) fn new(target: Target) -> Self {
        let unchecked = match &target {
            Target::File(_) => None,
            Target::Upload(id) => Some(UncheckedParts::of(id.clone())),
        };
        Self {
            target,
            unchecked,
            saved: None,
            resume_token: String::new(),
            committed_size: 0,
            resumed_from: 0,
            lacks_digest: false,
            conflict: WriterConflict::default(),
        }
    }

    /// As `new`, with what another process has saved.
    pub(super) fn with_saved(target: Target, saved: Saved) -> Self {
        let open = saved.earlier();
        let target = open.map_or(target, |open| Target::Upload(open.upload_id.clone()));
        Self {
            resume_token: open.map_or_else(String::new, |open| open.resume_token.clone()),
            saved: Some(saved),
            ..Self::new(target)
        }
    }

    /// Begins a new upload if `failure` says that the saved one is not of this file, or no longer exists.
    pub(super) fn is_replaced_after(&mut self, failure: &ClientError) -> bool {
        let Some(saved) = &mut self.saved else {
            return false;
        };
        let Some(file) = saved.replace_after(failure) else {
            return false;
        };
        let saved = self.saved.take();
        *self = Self {
            saved,
            ..Self::new(Target::File(file))
        };
        true
    }

    /// Saves which upload the gateway has opened.
    ///
    /// # Errors
    /// `Resume`.
    pub(super) async fn save_opened(&mut self, phase: Phase) -> Result<(), ClientError> {
        let (Target::Upload(id), Some(saved)) = (&self.target, &mut self.saved) else {
            return Ok(());
        };
        saved.opened(id, &self.resume_token, phase).await
    }

    /// Whether the gateway had the file before this call.
    pub(super) fn was_complete(&self) -> bool {
        let saved = self.saved.as_ref();
        saved.is_some_and(|saved| saved.was_complete)
    }

    /// Saves the newest resume token, now and then.
    pub(super) async fn save_token(&mut self) {
        if let (Target::Upload(id), Some(saved)) = (&self.target, &mut self.saved) {
            saved.committed(id, &self.resume_token).await;
        }
    }

    /// Saves that the upload is complete.
    pub(super) async fn save_complete(&mut self) {
        if let (Target::Upload(id), Some(saved)) = (&self.target, &mut self.saved) {
            saved.complete(id).await;
        }
    }

    /// None: the upload is not created yet, or the response to the create was lost.
    pub(super) fn upload_id(&self) -> Option<&str> {
        match &self.target {
            Target::File(_) => None,
            Target::Upload(id) => Some(id),
        }
    }

    /// The first message of the next try.
    pub(super) fn open(&self, options: &UploadOptions) -> Open {
        let target = match &self.target {
            Target::File(file) => open::Target::File(file.clone()),
            Target::Upload(id) => open::Target::UploadId(id.clone()),
        };
        Open {
            target: Some(target),
            resume_token: self.resume_token.clone(),
            takeover: self.conflict.takeover(options.takeover).into(),
            ..Open::default()
        }
    }

    /// Keeps what a message of the gateway reports.
    pub(super) fn update(&mut self, progress: &UploadProgress) {
        if self.upload_id() != Some(&progress.upload_id) {
            self.target = Target::Upload(progress.upload_id.clone());
        }
        self.committed_size = u64::try_from(progress.committed_size).unwrap_or_default();
        let upload = progress.upload.as_ref();
        let in_upload = upload.map_or("", |upload| &upload.resume_token);
        for token in [&progress.resume_token, in_upload] {
            if !token.is_empty() {
                token.clone_into(&mut self.resume_token);
            }
        }
    }

    /// Prepares the next try.
    ///
    /// # Errors
    /// The failure, if the next try would fail, too.
    pub(super) fn learn(&mut self, failure: ClientError) -> Result<ClientError, ClientError> {
        // Parts that were sent straight to the store break the MD5 chain. The gateway reports it at the finish.
        let drops_digest = failure.reason() == Some(ErrorReason::DigestUnknown)
            && !mem::replace(&mut self.lacks_digest, true);
        let failure = self.conflict.classify(failure)?;
        if !drops_digest && !is_conflict(&failure) && !failure.is_resumable() {
            return Err(failure);
        }
        if failure.reason() == Some(ErrorReason::InvalidToken) {
            self.resume_token.clear();
        }
        // Errors of an open stream name the upload. So the next try resumes it, even if the first response was lost.
        if let ClientError::Refused(refusal) = &failure
            && self.upload_id().is_none()
            && let Some(upload_id) = refusal.metadata.get("upload_id")
        {
            self.target = Target::Upload(upload_id.clone());
        }
        // The last progress can be lost together with the stream.
        if let Some(committed_size) = failure.committed_size() {
            self.committed_size = self.committed_size.max(committed_size);
        }
        Ok(failure)
    }

    /// How long the gateway asks to wait.
    pub(super) fn requested_delay(&self, failure: &ClientError) -> Option<Duration> {
        // A broken stream of this sender usually ends earlier than its heartbeat expires.
        failure.retry_delay().filter(|_| !is_conflict(failure))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn failure(code: Code, reason: ErrorReason) -> ClientError {
        let metadata = HashMap::from([("upload_id".to_owned(), "uploads-1".to_owned())]);
        let details = ErrorDetails::with_error_info(reason.name(), "uploadgateway.v1", metadata);
        Status::with_error_details(code, "", details).into()
    }

    #[test]
    fn an_error_names_the_upload_that_the_next_try_opens() {
        let mut known = Known::new(Target::File("a".into()));
        let unavailable = failure(Code::Unavailable, ErrorReason::StoreUnavailable);
        known.learn(unavailable).unwrap();
        assert_eq!(known.upload_id(), Some("uploads-1"));
        let open = known.open(&UploadOptions::default());
        let expected = open::Target::UploadId("uploads-1".into());
        assert_eq!(open.target, Some(expected));
    }

    #[test]
    fn an_error_reports_how_much_is_committed() {
        let mut known = Known::new(Target::Upload("uploads-1".into()));
        for (size, committed) in [("7", 7), ("3", 7), ("-", 7)] {
            let metadata = HashMap::from([("committed_size".to_owned(), size.to_owned())]);
            let details = ErrorDetails::with_error_info("MOVE_ON", "uploadgateway.v1", metadata);
            let moved = Status::with_error_details(Code::Unavailable, "", details).into();
            known.learn(moved).unwrap();
            assert_eq!(known.committed_size, committed);
        }
    }

    #[test]
    fn a_refused_token_is_not_sent_again() {
        let mut known = Known::new(Target::Upload("uploads-1".into()));
        known.update(&UploadProgress {
            upload_id: "uploads-1".into(),
            resume_token: "token".into(),
            ..UploadProgress::default()
        });
        assert_eq!(known.open(&UploadOptions::default()).resume_token, "token");
        let refused = failure(Code::InvalidArgument, ErrorReason::InvalidToken);
        known.learn(refused).unwrap();
        assert_eq!(known.open(&UploadOptions::default()).resume_token, "");
    }

    #[test]
    fn a_digest_that_the_gateway_lacks_is_left_out_once() {
        let mut known = Known::new(Target::File("a".into()));
        let unknown = || failure(Code::FailedPrecondition, ErrorReason::DigestUnknown);
        known.learn(unknown()).unwrap();
        assert!(known.lacks_digest);
        known.learn(unknown()).unwrap_err();
    }
}
