//! The store's session of an upload: begun by a stream, or by a client that sends parts itself; replaced while it holds
//! nothing, and found lost or committed.

use std::sync::Arc;

use super::{Fence, Gateway, Storage, part::new_object, state_lost, taken_over};
use crate::{
    blobs::Session,
    call,
    error::{Error, Reason, Result},
    state::Predecessor,
    upload::{Event, Phase, Upload, WriterTag},
};

/// The longest name of a session, in bytes: AWS's are below 200.
const MAX_SESSION_LENGTH: usize = 1024;

// === impl Gateway ===

impl Gateway {
    /// Begins the session for a stream's parts and returns the upload with it. Comes to its end also when the stream ends
    /// meanwhile: a session that does not get into the record is ended again.
    pub(super) async fn begin_session(
        self: &Arc<Self>,
        storage: &Arc<Storage>,
        upload: &Upload,
    ) -> Result<Upload> {
        let (gateway, storage) = (Arc::clone(self), Arc::clone(storage));
        let mut upload = upload.clone();
        let begun = tokio::spawn(call::propagate(async move {
            let object = new_object(&upload, None);
            let begin = || storage.store.begin(&object);
            let session = gateway.retry.run(begin).await?;
            let event = Event::SessionStarted {
                session: session.clone(),
            };
            let recorded = gateway.transition(&mut upload, &event, Fence::Writer);
            if let Err(error) = recorded.await {
                gateway.end_unrecorded(&upload, &session, &error).await;
                return Err(error);
            }
            Ok(upload)
        }));
        begun
            .await
            .map_err(|error| Error::internal("begin a session", error))?
    }

    /// Records the session that a client has begun. On Azure, which has none, any name is fine and the first is kept; on
    /// S3 another one takes the place of one that holds no parts; what a stream left there unrecorded is none.
    ///
    /// # Errors
    /// `InvalidArgument` for what can be no name; `FailedPrecondition`, `SessionInUse`, when the store has parts under
    /// the recorded one.
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
            match self.transition(upload, &started, Fence::None).await {
                // Somebody else began one in this very moment.
                Err(_) if upload.session.is_some() && upload.phase == Phase::Open => {}
                recorded => return recorded,
            }
        }
        let creates_sessions = self
            .storages
            .get(&upload.storage_id)?
            .store
            .capabilities()
            .creates_sessions;
        if !creates_sessions || upload.session.as_ref() == Some(&session) {
            return Ok(());
        }
        self.replace_session(upload, session).await
    }

    /// Keeps every stream that writes now out of the record; none when it is no longer OPEN.
    pub(super) async fn fence(&self, upload: &Upload) -> Result<Option<Upload>> {
        let (writer, times) = (WriterTag::random(), self.times());
        let taken = self.retry.run(|| {
            let anybody = Predecessor::Any;
            self.state.take_over(&upload.id, writer, anybody, times)
        });
        Ok(taken.await?.filter(|upload| upload.phase == Phase::Open))
    }

    /// Takes a session that the store no longer knows out of the record. Parts that a stream put there are lost with it,
    /// and with them the upload.
    pub(super) async fn forget_session(&self, upload: &mut Upload) -> Result<()> {
        if upload.parts.is_empty() {
            let forgotten = Event::SessionReplaced { session: None };
            return self.transition(upload, &forgotten, Fence::Writer).await;
        }
        let lost = Error::precondition(
            Reason::SessionLost,
            "the store knows neither session nor object",
        );
        Err(self.refuse(upload, lost).await)
    }

    /// What a stream does whose session the store does not know: a client may have replaced it, or committed it, and
    /// then the upload is COMPLETE. Otherwise it is refused for `why`.
    pub(super) async fn session_lost(&self, upload: &mut Upload, why: Error) -> Result<()> {
        let found = self.retry.run(|| self.state.get(&upload.id)).await?;
        let Some(found) = found.filter(|found| found.version >= upload.version) else {
            return Err(state_lost());
        };
        if (&found.session, found.writer) != (&upload.session, upload.writer) {
            return Err(taken_over());
        }
        let storage = self.storages.get(&upload.storage_id)?;
        if self.find_committed(&storage, upload).await? {
            return Ok(());
        }
        Err(self.refuse(upload, why).await)
    }

    async fn replace_session(&self, upload: &mut Upload, session: String) -> Result<()> {
        // No stream is stopped for what cannot be.
        if !upload.parts.is_empty() {
            return Err(session_in_use());
        }
        let fenced = self.fence(upload).await?;
        *upload = fenced.ok_or_else(|| {
            Error::precondition(Reason::WrongPhase, "the upload is no longer open")
        })?;
        let old = upload.clone();
        let storage = self.storages.get(&old.storage_id)?;
        let held = self.stored_parts(&storage, &old).await?;
        if !old.parts.is_empty() || held.is_some_and(|held| !held.is_empty()) {
            return Err(session_in_use());
        }
        let replaced = Event::SessionReplaced {
            session: Some(session),
        };
        self.transition(upload, &replaced, Fence::Writer).await?;
        if old.session != upload.session
            && let Err(error) = self.end_session(&old).await
        {
            tracing::warn!(upload_id = %upload.id, %error, "a session that nobody uses stays behind");
        }
        Ok(())
    }
}

/// The upload's session, as requests name it; stores without sessions do not look at it.
pub(super) fn store_session(upload: &Upload) -> Session<'_> {
    Session {
        key: &upload.object_key,
        id: upload.session.as_deref().unwrap_or_default(),
    }
}

fn session_in_use() -> Error {
    Error::precondition(
        Reason::SessionInUse,
        "the store has parts under another resumable_id; create again to go on with them",
    )
}
