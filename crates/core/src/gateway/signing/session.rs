//! The session that a client reports as `resumable_id`.

use super::Signing;
use crate::{
    error::{Error, Reason, Result},
    gateway::records::Fence,
    upload::{Event, Phase, Upload},
};

/// The longest name of a session, in bytes: AWS's are below 200.
const MAX_SESSION_LENGTH: usize = 1024;

// === impl Signing ===

impl Signing {
    /// Records the session that a client has created. If sessions are implicit (Azure), any name is accepted and the first
    /// is kept. Otherwise (S3) another session replaces the recorded one if that has no parts; parts that a stream left
    /// there unrecorded do not count.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid name; `FailedPrecondition`, `SessionInUse`, if the store has parts in the
    /// recorded session.
    pub(super) async fn set_session(&self, upload: &mut Upload, session: String) -> Result<()> {
        if session.len() > MAX_SESSION_LENGTH
            || !session.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let message = format!("at most {MAX_SESSION_LENGTH} visible ASCII characters");
            return Err(Error::invalid("resumable_id", message));
        }
        if upload.session.is_none() {
            let started = Event::SessionStarted {
                session: session.clone(),
            };
            match self.records.transition(upload, &started, Fence::None).await {
                // Another caller recorded one at the same moment.
                Err(_) if upload.session.is_some() && upload.phase == Phase::Open => {}
                recorded => return recorded,
            }
        }
        let storage = self.storages.get(&upload.storage_id)?;
        let creates_sessions = storage.capabilities().creates_sessions;
        if !creates_sessions || upload.session.as_ref() == Some(&session) {
            return Ok(());
        }
        self.replace_session(upload, session).await
    }

    async fn replace_session(&self, upload: &mut Upload, session: String) -> Result<()> {
        // Before a stream is fenced: this cannot succeed.
        if !upload.parts.is_empty() {
            return Err(session_in_use());
        }
        let fenced = self.records.fence(upload).await?;
        *upload = fenced.ok_or_else(|| {
            Error::precondition(Reason::WrongPhase, "the upload is no longer open")
        })?;
        let old = upload.clone();
        let storage = self.storages.get(&old.storage_id)?;
        let held = self.inspector.stored_parts(&storage, &old).await?;
        if !old.parts.is_empty() || held.is_some_and(|held| !held.is_empty()) {
            return Err(session_in_use());
        }
        let replaced = Event::SessionReplaced {
            session: Some(session),
        };
        self.records
            .transition(upload, &replaced, Fence::Writer)
            .await?;
        if old.session != upload.session
            && let Err(error) = self.sessions.end(&old).await
        {
            tracing::warn!(upload_id = %upload.id, %error, "a replaced session is left to the sweeper");
        }
        Ok(())
    }
}

fn session_in_use() -> Error {
    Error::precondition(
        Reason::SessionInUse,
        "the store has parts under another resumable_id; create again to continue with them",
    )
}
