//! Parts that are put into a store, or that the store copies by itself.

use std::time::Duration;

use tokio::time::Instant;

use super::{Storage, Turn};
use crate::{
    blobs::{Begun, Copied, NewObject, NewPart, PartCopy, Session},
    error::Result,
    gateway::copy_from::CopyFrom,
    upload::{Digests, Event, Integrity, Upload, UploadId},
};

// === impl Storage ===

impl Storage {
    /// Creates the session for the parts of an upload, and returns the event to record.
    ///
    /// # Errors
    /// As [`MultipartStore::begin`](crate::blobs::MultipartStore::begin), after the retry time-out.
    pub(in crate::gateway) async fn begin_session(
        &self,
        upload: &Upload,
        integrity: Integrity,
    ) -> Result<Event> {
        let promised = upload.promised_md5().map(Digests::from);
        let object = NewObject {
            integrity,
            ..self.new_object(upload, promised.unwrap_or_default())
        };
        let Begun { id, integrity } = self.store.begin(&object).await?;
        Ok(Event::SessionStarted {
            session: id,
            integrity,
        })
    }

    /// Which digest the parts of a new session have. Copies are proven by the MD5s of their parts.
    pub(in crate::gateway) async fn session_integrity(&self, upload: &Upload) -> Integrity {
        match upload.copy_of {
            Some(_) => Integrity::Md5,
            None => self.integrity().await,
        }
    }

    /// Puts a part of `upload`, which may have a turn, and returns its receipt.
    ///
    /// # Errors
    /// As [`MultipartStore::put_part`](crate::blobs::MultipartStore::put_part), after the retry time-out.
    pub(in crate::gateway) async fn put_part(
        &self,
        upload: &UploadId,
        turn: Option<Turn>,
        session: &Session<'_>,
        part: &NewPart,
    ) -> Result<String> {
        let put = || self.single_try.put_part(session, part.clone());
        self.in_turns(upload, turn, put).await
    }

    /// Lets the store copy a part of `upload`, which may have a turn, by itself.
    ///
    /// # Errors
    /// As [`CopyStore::copy_part`](crate::blobs::CopyStore::copy_part), after the retry time-out.
    pub(in crate::gateway) async fn copy_part(
        &self,
        upload: &UploadId,
        turn: Option<Turn>,
        session: &Session<'_>,
        (part, from): (&PartCopy, &CopyFrom),
    ) -> Result<Copied> {
        let copy = || async {
            let source = from.source().await?;
            self.single_try.copy_part(session, part, &source).await
        };
        self.in_turns(upload, turn, copy).await
    }

    /// Lets the store copy a whole object by itself.
    ///
    /// # Errors
    /// As [`CopyStore::copy_object`](crate::blobs::CopyStore::copy_object), after the retry time-out.
    pub(in crate::gateway) async fn copy_object(
        &self,
        object: &NewObject,
        from: &CopyFrom,
    ) -> Result<()> {
        let copy = || async {
            let source = from.source().await?;
            self.single_try.copy_object(object, &source).await
        };
        self.retry.run_whole(copy).await
    }

    /// Sends what makes a part of `upload`, which may have a turn. Each further attempt waits for a turn of its own, so that a
    /// store that does not keep up gets fewer of them.
    async fn in_turns<T, F>(
        &self,
        upload: &UploadId,
        mut turn: Option<Turn>,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let attempt = || {
            let turn = turn.take();
            async {
                let waiting = Instant::now();
                let turn = match turn {
                    Some(turn) => turn,
                    None => match self.turns.take(upload).await {
                        Ok(turn) => turn,
                        Err(error) => return (Duration::ZERO, Err(error)),
                    },
                };
                let begun = Instant::now();
                let sent = send().await;
                turn.report(begun, &sent);
                (begun - waiting, sent)
            }
        };
        self.retry.run_in_turns(attempt).await
    }
}
