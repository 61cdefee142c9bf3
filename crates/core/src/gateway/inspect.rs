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
        CompositeMd5, Event, Md5, Object, Part, Phase, SINGLE_PUT_MAX, StoreKind, Upload, WriterTag,
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
            if upload.store_kind == StoreKind::S3 {
                return Ok(());
            }
            // Without one the parts would count as a single put.
            let session = storage.store.begin(&new_object(upload, None)).await?;
            let started = Event::SessionStarted { session };
            self.transition(upload, &started, Fence::Writer).await?;
        }
        let held = self.stored_parts(&storage, upload).await?;
        let is_whole = |held: &BTreeMap<_, _>| Some(held.len()) == count(upload);
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

    /// The object is the upload's when it has its size and every digest or block that can be checked.
    pub(super) async fn verify(
        &self,
        storage: &Storage,
        upload: &Upload,
        found: StoredObject,
    ) -> Result<Object> {
        let foreign = |message: &str| Error::precondition(Reason::PartReplaced, message);
        if found.upload_id().is_some_and(|id| id != upload.id.as_str()) {
            return Err(foreign("another upload's object lies under this key"));
        }
        // Of a stream of unknown size it is known to be one of its commits, and no shorter than what was recorded of it.
        let fits = upload.settled_size().map_or_else(
            || found.upload_id().is_some() && found.size >= upload.committed_size(),
            |size| found.size == size,
        );
        if !fits {
            return Err(foreign("the object has another size than the file")
                .with("object_size", found.size));
        }
        let key = upload.object_key.clone();
        let blocks = self.retry.run(|| storage.store.composition(&key)).await?;
        let is_whole = found.size <= SINGLE_PUT_MAX
            && found.composite.is_none()
            && blocks.as_ref().is_none_or(Vec::is_empty);
        if is_whole {
            if let (Some(promised), Some(stored)) = (upload.promised_md5(), found.md5)
                && promised != stored
            {
                return Err(digest_mismatch(promised, stored));
            }
        } else if !composite_fits(upload, found.composite)
            || !blocks.is_none_or(|blocks| blocks_fit(upload, &blocks))
        {
            return Err(foreign("the object is made of other parts than were sent"));
        }
        Ok(Object {
            bucket: storage.store.bucket().to_owned(),
            key,
            etag: found.etag,
            size: found.size,
            // On Azure it is what the client said it was.
            md5: found
                .md5
                .filter(|_| is_whole && upload.store_kind == StoreKind::S3),
        })
    }
}

/// The refusal of an upload of which only `held` parts are there, and no object yet.
pub(super) fn incomplete(upload: &Upload, held: &BTreeMap<u32, Part>) -> Error {
    if Some(held.len()) == count(upload) {
        let message = "all parts are there; send the signed finish first";
        return Error::precondition(Reason::Incomplete, message);
    }
    let file_size = upload.file.file_size.unwrap_or(0);
    missing(upload, file_size, |number| held.contains_key(&number))
}

fn count(upload: &Upload) -> Option<usize> {
    object_parts(upload).map(|count| count as usize)
}

/// How many parts the object has: as many as are planned or, of a file whose size was not declared, as were recorded once
/// it is whole.
fn object_parts(upload: &Upload) -> Option<u32> {
    let is_whole = upload.file.file_size == Some(upload.parts.committed_size());
    let recorded = is_whole.then_some(upload.parts.committed());
    upload.part_count().or(recorded)
}

/// Whether the store made the object of parts with the known and claimed MD5s, as far as it tells and they are all known.
pub(super) fn composite_fits(upload: &Upload, found: Option<CompositeMd5>) -> bool {
    let numbers = 1..=object_parts(upload).unwrap_or(0);
    let md5 = |number| {
        let recorded = upload.parts.get(number).and_then(|part| part.md5);
        recorded.or_else(|| upload.claims.md5(number))
    };
    let md5s: Option<Vec<Md5>> = numbers.map(md5).collect();
    match (found, md5s) {
        (Some(found), Some(md5s)) if upload.part_count().is_some() => {
            found == CompositeMd5::of(md5s)
        }
        _ => true,
    }
}

/// Whether an object is made of blocks with the planned sizes that may be the upload's: the recorded ones, and the client's
/// own where none was recorded. Another stream's block is one that was recorded once: only gateways know its name, and the
/// state store may have lost what a gateway has committed.
fn blocks_fit(upload: &Upload, blocks: &[StoredPart]) -> bool {
    let count = count(upload);
    let fits = |number: u32, block: &StoredPart| {
        let planned = upload.span(number).map_or(0, |span| span.size);
        // A file of unknown size ends wherever it does.
        let may_be_short = count.is_none() && number as usize == blocks.len();
        let is_numbered = block.number == Some(number);
        let is_known = match upload.parts.get(number) {
            Some(part) if block.receipt == part.receipt => true,
            Some(_) => is_numbered && block.writer.is_some() && upload.claims.is_empty(),
            None => is_numbered,
        };
        is_known && (block.size == planned || may_be_short && block.size < planned)
    };
    count.is_none_or(|count| blocks.len() == count)
        && (1..).zip(blocks).all(|(number, block)| fits(number, block))
}
