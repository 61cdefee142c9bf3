//! What the store has of an upload. What clients say of parts that they put into the store themselves is a claim; what the
//! store reports decides.
//!
//! The store is asked when a stream opens such an upload, when an identical create finds it, at finish and at completion.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::session::{Sessions, new_object, store_session};
use crate::{
    blobs::{StoredObject, StoredPart},
    error::{Error, Kind, Reason, Result},
    gateway::{
        records::{Fence, Records},
        refusal::{not_own, session_lost, state_lost, taken_over},
        storage::{Storage, Storages},
    },
    upload::{
        Event, Object, Part, Phase, Upload, WriterTag,
        object::{Difference, Expected, Strictness, Verdict, is_put_whole, verify},
    },
};

/// How often an object is looked at while other callers change its upload.
const MAX_LOOKS: usize = 5;

/// When a caller that saw the upload change each time may try again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Looks at the store, and brings the record in line with it.
#[derive(Debug)]
pub(in crate::gateway) struct Inspector {
    records: Arc<Records>,
    storages: Storages,
    sessions: Arc<Sessions>,
}

// === impl Inspector ===

impl Inspector {
    pub(in crate::gateway) fn new(
        records: Arc<Records>,
        storages: Storages,
        sessions: Arc<Sessions>,
    ) -> Self {
        Self {
            records,
            storages,
            sessions,
        }
    }

    /// The parts of the plan that the store has with the planned size, by number, or `None` when it does not know the
    /// session. A part that was recorded is the one of its receipt; any other is the client's own, and counts where the
    /// client has spoken of it: what else lies there is left over from a stream.
    pub(in crate::gateway) async fn stored_parts(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<BTreeMap<u32, Part>>> {
        let session = store_session(upload);
        let Some(stored) = storage.store.list_parts(&session).await? else {
            return Ok(None);
        };
        let own = stored.iter().filter(|part| part.writer.is_none());
        let own: BTreeMap<u32, &StoredPart> =
            own.filter_map(|part| Some((part.number?, part))).collect();
        let sizes: HashMap<&str, u64> = stored
            .iter()
            .map(|part| (part.receipt.as_str(), part.size))
            .collect();
        let held = (1..=upload.part_count().unwrap_or(0)).filter_map(|number| {
            if let Some(part) = upload.parts.get(number) {
                let is_there = sizes.get(part.receipt.as_str()) == Some(&part.size);
                return is_there.then(|| (number, part.clone()));
            }
            if !upload.claims.contains(number) {
                return None;
            }
            let (span, found) = (upload.span(number)?, own.get(&number)?);
            let part = Part {
                number,
                offset: span.offset,
                size: span.size,
                md5: found
                    .md5
                    .filter(|md5| upload.claims.md5(number) == Some(*md5)),
                receipt: found.receipt.clone(),
                digest: None,
            };
            (found.size == span.size).then_some((number, part))
        });
        Ok(Some(held.collect()))
    }

    /// Records the parts that clients put behind the committed ones, so that a stream goes on after them. An upload that
    /// a client has committed meanwhile becomes COMPLETE.
    pub(in crate::gateway) async fn adopt(
        &self,
        upload: &mut Upload,
        writer: WriterTag,
    ) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        if upload.session.is_none() {
            if storage.capabilities().creates_sessions {
                return Ok(());
            }
            // Without one the parts would count as a single put.
            let session = storage.store.begin(&new_object(upload, None)).await?;
            let started = Event::SessionStarted { session };
            self.records
                .transition(upload, &started, Fence::Writer)
                .await?;
        }
        let held = self.stored_parts(&storage, upload).await?;
        let is_whole = |held: &BTreeMap<_, _>| Some(held.len()) == object_part_count(upload);
        if held.as_ref().is_none_or(is_whole) && self.find_committed(&storage, upload).await? {
            return Ok(());
        }
        let Some(mut held) = held else {
            return self.forget_session(upload).await;
        };
        let first = upload.parts.committed() + 1;
        let next: Vec<Part> = (first..).map_while(|number| held.remove(&number)).collect();
        if next.is_empty() {
            return Ok(());
        }
        self.records
            .record_parts(&upload.id, upload.version, writer, &next)
            .await?;
        next.into_iter().for_each(|part| upload.parts.insert(part));
        Ok(())
    }

    /// Looks whether a client has made the object, and if so makes the upload COMPLETE.
    ///
    /// # Errors
    /// `FailedPrecondition` or `DataLoss` when it is not the upload's: then it is deleted and the upload ABORTED.
    /// `Unavailable` when others change the upload each time it is looked at.
    pub(in crate::gateway) async fn find_committed(
        &self,
        storage: &Storage,
        upload: &mut Upload,
    ) -> Result<bool> {
        let (id, key) = (upload.id.clone(), upload.object_key.clone());
        for _ in 0..MAX_LOOKS {
            let Some(found) = storage.store.head(&key).await? else {
                return Ok(false);
            };
            // Only now, as others may have written since `upload` was read: what an object is made of is recorded and
            // claimed before it is made.
            let current = self.records.find(&id).await?;
            *upload = current.ok_or_else(|| Error::upload_not_found(&id))?;
            let error = match self.verify(storage, upload, found).await {
                Ok(object) => {
                    let committed = Event::Committed { object };
                    self.records
                        .transition(upload, &committed, Fence::None)
                        .await?;
                    return Ok(true);
                }
                Err(error) => error,
            };
            // What is being committed is its committer's to refuse.
            if upload.phase != Phase::Open
                || !matches!(error.kind(), Kind::FailedPrecondition | Kind::DataLoss)
            {
                return Err(error);
            }
            // Touched since, it is no longer what was judged.
            let seen = upload.updated_at;
            if self
                .records
                .end_untouched(upload, Event::Refused, seen)
                .await?
            {
                if let Err(error) = self.sessions.discard(upload).await {
                    tracing::warn!(upload_id = %upload.id, %error, "a refused upload's object stays behind");
                }
                return Err(error);
            }
        }
        let message = "others change the upload each time it is looked at";
        Err(Error::new(Kind::Unavailable, Reason::WriterActive, message).retry_after(LOOK_AGAIN))
    }

    /// Verifies the object that HEAD found, with every digest and block that the store reports.
    ///
    /// # Errors
    /// `FailedPrecondition` or `DataLoss` when it is not the upload's.
    pub(in crate::gateway) async fn verify(
        &self,
        storage: &Storage,
        upload: &Upload,
        found: StoredObject,
    ) -> Result<Object> {
        let key = upload.object_key.clone();
        let blocks = storage.store.composition(&key).await?;
        let capabilities = storage.capabilities();
        let verdict = verify(
            &Expected::of_record(upload),
            &capabilities,
            Some(&found),
            blocks.as_deref(),
            Strictness::Inspection,
        );
        match verdict {
            Verdict::Same => {}
            Verdict::Different(difference) => return Err(not_own(difference)),
            Verdict::Absent | Verdict::Unknown => {
                return Err(not_own(Difference::Size(found.size)));
            }
        }
        let is_whole = is_put_whole(&found, blocks.as_deref());
        Ok(Object {
            bucket: storage.store.bucket().to_owned(),
            key,
            etag: found.etag,
            size: found.size,
            md5: found
                .md5
                .filter(|_| is_whole && capabilities.computes_object_md5),
        })
    }

    /// Ends an upload that can never become the object that it must become, and returns why.
    pub(in crate::gateway) async fn refuse(&self, upload: &mut Upload, why: Error) -> Error {
        let refused = self
            .records
            .transition(upload, &Event::Refused, Fence::Writer);
        if let Err(error) = refused.await {
            return error;
        }
        if let Err(error) = self.sessions.discard(upload).await {
            tracing::warn!(upload_id = %upload.id, %error, "a refused upload is left to the sweeper");
        }
        why
    }

    /// Removes a session that the store no longer knows from the record. Parts that a stream put there are lost with it,
    /// and so is the upload.
    pub(in crate::gateway) async fn forget_session(&self, upload: &mut Upload) -> Result<()> {
        if upload.parts.is_empty() {
            let forgotten = Event::SessionReplaced { session: None };
            return self
                .records
                .transition(upload, &forgotten, Fence::Writer)
                .await;
        }
        let lost = session_lost("the store knows neither session nor object");
        Err(self.refuse(upload, lost).await)
    }

    /// What a stream does if the store does not know its session: a client may have replaced it, or committed it, and then
    /// the upload is COMPLETE. Otherwise it is refused for `why`.
    pub(in crate::gateway) async fn session_lost(
        &self,
        upload: &mut Upload,
        why: Error,
    ) -> Result<()> {
        let found = self.records.find(&upload.id).await?;
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
}

fn object_part_count(upload: &Upload) -> Option<usize> {
    upload.object_part_count().map(|count| count as usize)
}
