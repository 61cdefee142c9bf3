//! What clients say of parts they sent to the store themselves is a claim; what the store says of them counts.
//!
//! It is asked when a stream opens such an upload, when the same create finds it, at the finish and at completion.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    Fence, Gateway, Storage,
    commit::{digest_mismatch, missing},
    part::new_object,
    session::store_session,
};
use crate::{
    blobs::{StoredObject, StoredPart},
    error::{Error, Kind, Reason, Result},
    upload::{
        Event, Object, Part, Phase, Upload, WriterTag,
        object::{Difference, Expected, Strictness, Verdict, is_put_whole, verify},
    },
};

/// How often an object is looked at whose upload others change meanwhile.
const MAX_LOOKS: usize = 5;

/// When somebody may look again who has done so in vain.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

// === impl Gateway ===

impl Gateway {
    /// The parts of the plan that the store has with the planned size, by number, or `None` when it does not know the
    /// session. A part that was recorded is the one of its receipt; any other is the client's own, and counts where the
    /// client has spoken of it: what else lies there is left over from a stream.
    pub(super) async fn stored_parts(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<BTreeMap<u32, Part>>> {
        let session = store_session(upload);
        let listed = self.retry.run(|| storage.store.list_parts(&session));
        let Some(stored) = listed.await? else {
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
    pub(super) async fn adopt(&self, upload: &mut Upload, writer: WriterTag) -> Result<()> {
        let storage = self.storages.get(&upload.storage_id)?;
        if upload.session.is_none() {
            if storage.store.capabilities().creates_sessions {
                return Ok(());
            }
            // Without one the parts would count as a single put.
            let session = storage.store.begin(&new_object(upload, None)).await?;
            let started = Event::SessionStarted { session };
            self.transition(upload, &started, Fence::Writer).await?;
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
        self.record_parts(&upload.id, upload.version, writer, &next)
            .await?;
        next.into_iter().for_each(|part| upload.parts.insert(part));
        Ok(())
    }

    /// Looks whether a client has made the object, and if so makes the upload COMPLETE.
    ///
    /// # Errors
    /// `FailedPrecondition` or `DataLoss` when it is not the upload's: then it is deleted and the upload ABORTED.
    /// `Unavailable` when others change the upload each time it is looked at.
    pub(super) async fn find_committed(
        &self,
        storage: &Storage,
        upload: &mut Upload,
    ) -> Result<bool> {
        let (id, key) = (upload.id.clone(), upload.object_key.clone());
        for _ in 0..MAX_LOOKS {
            let Some(found) = self.retry.run(|| storage.store.head(&key)).await? else {
                return Ok(false);
            };
            // Only now, as others may have written since `upload` was read: what an object is made of is recorded and
            // claimed before it is made.
            let current = self.retry.run(|| self.state.get(&id)).await?;
            *upload = current.ok_or_else(|| Error::upload_not_found(&id))?;
            let error = match self.verify(storage, upload, found).await {
                Ok(object) => {
                    let committed = Event::Committed { object };
                    self.transition(upload, &committed, Fence::None).await?;
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
            if self.end_untouched(upload, Event::Refused, seen).await? {
                if let Err(error) = self.discard(upload).await {
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
    pub(super) async fn verify(
        &self,
        storage: &Storage,
        upload: &Upload,
        found: StoredObject,
    ) -> Result<Object> {
        let key = upload.object_key.clone();
        let blocks = self.retry.run(|| storage.store.composition(&key)).await?;
        let capabilities = storage.store.capabilities();
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
}

/// The refusal of an object that is not the upload's.
pub(super) fn not_own(difference: Difference) -> Error {
    let replaced = |message: &str| Error::precondition(Reason::PartReplaced, message);
    match difference {
        Difference::Upload => replaced("the object under this key belongs to another upload"),
        Difference::Size(size) => {
            replaced("the object has another size than the file").with("object_size", size)
        }
        Difference::Md5 { expected, found } => digest_mismatch(expected, found),
        Difference::Parts => replaced("the object is made of other parts than were sent"),
    }
}

/// The refusal of an upload of which only `held` parts are there, and no object yet.
pub(super) fn incomplete(upload: &Upload, held: &BTreeMap<u32, Part>) -> Error {
    if Some(held.len()) == object_part_count(upload) {
        let message = "all parts are there; send the signed finish first";
        return Error::precondition(Reason::Incomplete, message);
    }
    let file_size = upload.file.file_size.unwrap_or(0);
    missing(upload, file_size, |number| held.contains_key(&number))
}

fn object_part_count(upload: &Upload) -> Option<usize> {
    upload.object_part_count().map(|count| count as usize)
}
