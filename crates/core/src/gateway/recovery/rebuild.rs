//! A record that the state store lost, or lost the end of, is put together again from a resume token and what the store
//! has: never beyond the token, never without the store's word, and never against a record that is there.

use std::{collections::HashMap, sync::Arc};

use super::session::store_session;
use crate::{
    blobs::StoredPart,
    error::{Error, Result},
    gateway::{
        records::{Fence, Records},
        storage::{Storage, Storages},
        token::invalid_token,
    },
    state::Creation,
    upload::{
        Event, FileDigest, Listed, Md5, Object, Part, Snapshot, Upload, WriterTag,
        object::{Expected, Strictness, Verdict, verify},
    },
};

/// How many parts one call records: a few hundred kB, which no state store takes long for.
const RECORDED_AT_ONCE: usize = 1_000;

/// Rebuilds records from resume tokens.
#[derive(Debug)]
pub(in crate::gateway) struct Rebuilder {
    records: Arc<Records>,
    storages: Storages,
}

// === impl Rebuilder ===

impl Rebuilder {
    pub(in crate::gateway) fn new(records: Arc<Records>, storages: Storages) -> Self {
        Self { records, storages }
    }

    /// Makes the record of `snapshot` anew: COMPLETE where its object lies in the store, else OPEN; [`Rebuilder::heal`] records
    /// its parts. A record that somebody else makes at the same time is as good.
    ///
    /// # Errors
    /// `NotFound` when the store has neither object nor parts, and when the storage is not configured.
    pub(in crate::gateway) async fn rebuild(&self, snapshot: &Snapshot) -> Result<()> {
        let storage = self.storages.get(&snapshot.storage_id)?;
        if storage.store.kind() != snapshot.store_kind {
            return Err(invalid_token("its storage is another one now"));
        }
        let times = self.records.times();
        let mut upload = snapshot.record(times.now, times.expires_at);
        if upload.given_up_at() <= times.now {
            return Err(invalid_token("its upload is too old"));
        }
        // First the parts, then the object: a commit in between is seen.
        let listed = self.listed_parts(&storage, &upload).await?;
        if let Some(object) = self
            .own_finished_object(&storage, &upload, snapshot)
            .await?
        {
            // A finished upload is not found by its fingerprint.
            upload.fingerprint = None;
            upload.file.file_size = Some(object.size);
            upload
                .apply(Event::Committed { object })
                .map_err(|error| Error::internal("rebuild a finished upload", error))?;
        } else if snapshot.size() > 0
            && snapshot_parts(snapshot, &listed.unwrap_or_default()).is_empty()
        {
            return Err(Error::upload_not_found(&snapshot.id));
        }
        tracing::warn!(upload_id = %upload.id, phase = %upload.phase, "rebuilds a record that the state store lost");
        if let Creation::Exists(_) = self.records.create(&upload).await? {
            // The same create has made another upload meanwhile, which is found in its place.
            upload.fingerprint = None;
            self.records.create(&upload).await?;
        }
        Ok(())
    }

    /// Records the parts of `snapshot` that an OPEN record of the stream `writer` lacks, as far as the store has them. Where
    /// that cannot be done, the record stays as it is.
    pub(in crate::gateway) async fn heal(
        &self,
        upload: &mut Upload,
        writer: WriterTag,
        snapshot: &Snapshot,
    ) -> Result<()> {
        if upload.committed_size() >= snapshot.size() || upload.plan != snapshot.plan {
            return Ok(());
        }
        if let (None, true, Some(session)) =
            (&upload.session, upload.parts.is_empty(), &snapshot.session)
        {
            let session = session.clone();
            self.records
                .transition(upload, &Event::SessionStarted { session }, Fence::Writer)
                .await?;
        }
        if upload.session.is_none() || upload.session != snapshot.session {
            return Ok(());
        }
        let storage = self.storages.get(&upload.storage_id)?;
        let Some(listed) = self.listed_parts(&storage, upload).await? else {
            if let Some(object) = self.own_finished_object(&storage, upload, snapshot).await? {
                let committed = Event::Committed { object };
                self.records
                    .transition(upload, &committed, Fence::Writer)
                    .await?;
            }
            return Ok(());
        };
        let mut parts = snapshot_parts(snapshot, &listed);
        let is_same = |(known, part): (&Part, &Part)| known.receipt == part.receipt;
        let committed = upload.parts.committed() as usize;
        // Another writer has put other parts since the snapshot.
        if parts.len() <= committed || !upload.parts.iter_committed().zip(&parts).all(is_same) {
            return Ok(());
        }
        let lost = parts.split_off(committed);
        for some in lost.chunks(RECORDED_AT_ONCE) {
            self.records
                .record_parts(&upload.id, upload.version, writer, some)
                .await?;
        }
        lost.into_iter().for_each(|part| upload.parts.insert(part));
        tracing::warn!(
            upload_id = %upload.id,
            committed_size = upload.committed_size(),
            "recorded parts anew that the state store lost"
        );
        Ok(())
    }

    /// What the store lists of the upload's session; `None` when it has none or does not know it.
    async fn listed_parts(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<Vec<StoredPart>>> {
        if upload.session.is_none() {
            return Ok(None);
        }
        let session = store_session(upload);
        storage.store.list_parts(&session).await
    }

    /// The object that the upload became before its record was lost. Its MD5 is proven where the snapshot is of all of it.
    async fn own_finished_object(
        &self,
        storage: &Storage,
        upload: &Upload,
        snapshot: &Snapshot,
    ) -> Result<Option<Object>> {
        let key = upload.object_key.clone();
        let Some(found) = storage.store.head(&key).await? else {
            return Ok(None);
        };
        let verdict = verify(
            &Expected::of_snapshot(snapshot, upload),
            &storage.capabilities(),
            Some(&found),
            None,
            Strictness::Rebuild,
        );
        if verdict != Verdict::Same {
            return Ok(None);
        }
        let md5 = whole_digest(snapshot, found.size)?;
        Ok(Some(Object {
            bucket: storage.store.bucket().to_owned(),
            key,
            etag: found.etag,
            size: found.size,
            md5: md5.filter(|md5| found.md5.is_none_or(|stored| stored == *md5)),
        }))
    }
}

/// The parts of `snapshot` among those that the store lists.
fn snapshot_parts(snapshot: &Snapshot, listed: &[StoredPart]) -> Vec<Part> {
    let by_name: HashMap<(u32, Option<WriterTag>), &StoredPart> = listed
        .iter()
        .filter_map(|part| Some(((part.number?, part.writer), part)))
        .collect();
    snapshot.parts_among(|number, writer| {
        let part = by_name.get(&(number, writer))?;
        Some(Listed {
            receipt: &part.receipt,
            size: part.size,
            md5: part.md5,
        })
    })
}

/// The MD5 of the whole file of `size` bytes, where the snapshot knows it.
fn whole_digest(snapshot: &Snapshot, size: u64) -> Result<Option<Md5>> {
    let state = snapshot.digest().filter(|_| snapshot.size() == size);
    let digest = state.map(FileDigest::resume).transpose();
    digest
        .map(|digest| digest.map(FileDigest::finish))
        .map_err(|error| Error::internal("resume a file digest", error))
}
