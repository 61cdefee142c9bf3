//! The id of the store's session, which a client reports as `resumable_id`.

use sha2::{Digest, Sha256};

use super::Signing;
use crate::{
    error::{Error, Reason, Result},
    gateway::{records::Fence, refusal::wrong_phase},
    upload::{Event, Integrity, Phase, Upload},
};

/// The longest session id that a store makes, in bytes. Those of AWS are shorter than 200.
const MAX_SESSION_LENGTH: usize = 1024;

/// The longest text that is accepted as a session id where sessions are implicit, in bytes: clients send whole documents
/// of the store.
const MAX_TEXT_LENGTH: usize = 64 * 1024;

// === impl Signing ===

impl Signing {
    /// Records the session that a client has created. The first one is kept: clients that create the upload again share
    /// it. If sessions are implicit (Azure), any text is accepted, and changes nothing after the first.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid id; `FailedPrecondition` with `SessionInUse` and the recorded id for another one.
    pub(super) async fn set_session(&self, upload: &mut Upload, session: String) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        let creates_sessions = storage.capabilities().creates_sessions;
        let session = match creates_sessions {
            true => checked(session)?,
            false => shortened(session)?,
        };
        if upload.session.is_none() {
            let started = Event::SessionStarted {
                session: session.clone(),
                // The requests of clients have MD5s.
                integrity: Integrity::Md5,
            };
            match self.records.transition(upload, &started, Fence::None).await {
                // Another caller recorded a session at the same time.
                Err(_) if upload.session.is_some() && upload.phase == Phase::Open => {}
                recorded => return recorded,
            }
        }
        match upload.session.as_deref() {
            Some(recorded) if creates_sessions && recorded != session => {
                Err(session_in_use(recorded))
            }
            _ => Ok(()),
        }
    }
}

impl Signing {
    /// Makes the session of an upload one into which clients can put parts. If the store refuses them in the session that a stream
    /// began, the upload gets a new one, as long as it has no parts.
    ///
    /// # Errors
    /// `FailedPrecondition` with `NotSupported` if it has parts: only a stream can continue it.
    pub(super) async fn admit_clients(&self, upload: &mut Upload) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        let is_open = upload.phase == Phase::Open && upload.session.is_some();
        if !is_open
            || upload.session_integrity() == Integrity::Md5
            || storage.takes_plain_parts().await?
        {
            return Ok(());
        }
        if !upload.parts.is_empty() {
            return Err(streamed_only());
        }
        // The stream must not record parts of the old session any more.
        let fenced = self.records.fence(upload).await?;
        *upload = fenced.ok_or_else(|| wrong_phase(upload.phase))?;
        if !upload.parts.is_empty() {
            return Err(streamed_only());
        }
        self.sessions
            .restart(&storage, upload, Integrity::Md5)
            .await
    }
}

fn streamed_only() -> Error {
    let message = "the store takes no parts from clients in the session of this stream; only a stream can continue the upload";
    Error::precondition(Reason::NotSupported, message)
}

fn checked(session: String) -> Result<String> {
    if session.len() <= MAX_SESSION_LENGTH && session.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(session);
    }
    let message = format!("at most {MAX_SESSION_LENGTH} visible ASCII characters");
    Err(Error::invalid("resumable_id", message))
}

/// The text itself, or its SHA-256 if it is long.
fn shortened(text: String) -> Result<String> {
    if text.len() > MAX_TEXT_LENGTH {
        let message = format!("at most {MAX_TEXT_LENGTH} bytes");
        return Err(Error::invalid("resumable_id", message));
    }
    if text.len() <= MAX_SESSION_LENGTH {
        return Ok(text);
    }
    let digest = Sha256::digest(text.as_bytes());
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn session_in_use(recorded: &str) -> Error {
    Error::precondition(
        Reason::SessionInUse,
        format!(
            "another client sends this file under resumable_id {recorded}; create the upload again to share it"
        ),
    )
    .with("resumable_id", recorded)
}
