//! What a resume store knows of the upload of one file.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{Check, Resume, SavedUpload};
use crate::{
    client::Client,
    digest::Digests,
    error::ClientError,
    proto::v1::{ErrorReason, FileMetadata, Phase},
    retry::RetryPolicy,
    stamp::Stamp,
    transfer::Events,
    upload::{Uploaded, verify},
};

/// The least time between two saved resume tokens. Only an upload whose record the state store has lost needs one.
const TOKEN_INTERVAL: Duration = Duration::from_secs(1);

/// The upload of one file in a resume store.
#[derive(Debug)]
pub(crate) struct Saved {
    resume: Resume,
    /// What a new upload is created with.
    file: FileMetadata,
    stamp: Option<Stamp>,
    /// What an earlier call has saved, of whichever file.
    loaded: Option<SavedUpload>,
    /// The same if it is of this file, until the gateway has opened it or a new upload replaces it.
    earlier: Option<SavedUpload>,
    /// Whether the gateway had the file when it opened what was saved.
    pub(crate) was_complete: bool,
    token_saved: Instant,
}

// === impl Saved ===

impl Saved {
    /// # Errors
    /// `Resume`.
    pub(crate) async fn load(
        resume: Resume,
        file: FileMetadata,
        stamp: Option<Stamp>,
    ) -> Result<Self, ClientError> {
        let loaded = resume.store.load(&resume.key).await;
        let loaded = loaded.map_err(ClientError::Resume)?;
        let is_of = |saved: &SavedUpload| saved.is_of(stamp.as_ref(), resume.check);
        Ok(Self {
            earlier: loaded.clone().filter(is_of),
            loaded,
            resume,
            file,
            stamp,
            was_complete: false,
            token_saved: Instant::now(),
        })
    }

    /// The upload that an earlier call has begun with this file.
    pub(crate) fn earlier(&self) -> Option<&SavedUpload> {
        self.earlier.as_ref()
    }

    /// Whether `find_complete` needs the digests of the file.
    pub(crate) fn compares_checksums(&self) -> bool {
        self.earlier.is_some() && self.resume.check == Check::Checksum
    }

    /// The result, if an earlier call has completed the upload of this very file, and the gateway still has it. Without the
    /// digests of the file only its size and time are compared, if that is enough.
    pub(crate) async fn find_complete(
        &self,
        client: &Client,
        file: Option<Digests>,
        retry: &RetryPolicy,
        events: &Events,
    ) -> Result<Option<Uploaded>, ClientError> {
        let (Some(saved), Some(stamp)) = (&self.earlier, self.stamp) else {
            return Ok(None);
        };
        if self.resume.check == Check::Checksum && file.is_none() {
            return Ok(None);
        }
        let upload = client.get_with_retries(&saved.upload_id, retry, events);
        let upload = match upload.await {
            // A new upload follows.
            Err(failure) if is_gone(&failure) => return Ok(None),
            upload => upload?,
        };
        let compared = file.unwrap_or_default().known_of(upload.object.as_ref());
        let is_comparable = file.is_none() || compared != Digests::default();
        let is_same = is_comparable && verify(&upload, stamp.size, compared).is_ok();
        if upload.phase() != Phase::Complete || !is_same {
            return Ok(None);
        }
        if !saved.is_complete {
            self.complete(&upload.upload_id).await;
        }
        Ok(Some(Uploaded {
            upload,
            size: stamp.size,
            md5: compared.md5,
            crc64nvme: compared.crc64nvme,
            resumed_from: 0,
            was_complete: true,
        }))
    }

    /// Before anything is sent: other processes must not send the same file meanwhile.
    ///
    /// # Errors
    /// `Resume`.
    pub(crate) async fn claim(&self) -> Result<(), ClientError> {
        let resume = &self.resume;
        let claimed = resume.store.claim(&resume.key, self.loaded.as_ref()).await;
        claimed.map_err(ClientError::Resume)
    }

    /// What to create a new upload with, if `failure` says that the earlier one is not of this file, or no longer exists.
    pub(crate) fn replace_after(&mut self, failure: &ClientError) -> Option<FileMetadata> {
        let is_of_other_file = matches!(
            failure,
            ClientError::OtherFile { .. } | ClientError::Mismatch { .. }
        );
        if !is_of_other_file && !is_gone(failure) {
            return None;
        }
        self.was_complete = false;
        self.earlier.take().map(|_| self.file.clone())
    }

    /// Saves the upload before its bytes are sent.
    pub(crate) async fn opened(
        &mut self,
        id: &str,
        token: &str,
        phase: Phase,
    ) -> Result<(), ClientError> {
        if phase == Phase::Complete {
            // The bytes are still to be compared.
            self.was_complete = self.earlier.is_some();
            return Ok(());
        }
        self.earlier = None;
        let saved = self.saved(id, token, false);
        self.save(&saved).await.map_err(ClientError::Resume)
    }

    /// Saves the newest token. It is of use, but not needed.
    pub(crate) async fn committed(&mut self, id: &str, token: &str) {
        if self.token_saved.elapsed() >= TOKEN_INTERVAL {
            self.token_saved = Instant::now();
            let _ = self.save(&self.saved(id, token, false)).await;
        }
    }

    /// Saves that the upload is complete. If that fails, the next call finds it out from the gateway.
    pub(crate) async fn complete(&self, id: &str) {
        let _ = self.save(&self.saved(id, "", true)).await;
    }

    async fn save(&self, saved: &SavedUpload) -> io::Result<()> {
        self.resume.store.save(&self.resume.key, saved).await
    }

    fn saved(&self, id: &str, token: &str, is_complete: bool) -> SavedUpload {
        SavedUpload {
            upload_id: id.into(),
            resume_token: token.into(),
            is_complete,
            size: self.stamp.map(|stamp| stamp.size),
            modified: self.stamp.and_then(|stamp| stamp.modified),
        }
    }
}

/// Whether the upload no longer exists, or cannot become complete.
fn is_gone(failure: &ClientError) -> bool {
    matches!(
        failure.reason(),
        Some(ErrorReason::UploadNotFound | ErrorReason::WrongPhase | ErrorReason::UploadMoved)
    )
}
