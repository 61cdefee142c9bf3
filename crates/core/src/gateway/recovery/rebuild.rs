//! Rebuilds a record that the state store lost, or whose last parts it lost, from a resume token and the store's list.
//! Only parts that are in both are rebuilt, and an existing record is never contradicted.

use std::{collections::HashMap, sync::Arc};

use super::denials;
use crate::{
    blobs::StoredPart,
    error::{Error, Result},
    gateway::{
        object_records::Verified,
        records::{Fence, Records},
        refusal::too_little,
        storage::{Storage, Storages},
        token::invalid_token,
    },
    upload::{
        Digests, Event, FileDigest, Integrity, Listed, Part, Snapshot, Upload, WriterTag,
        object::{Expected, Verdict, verify},
    },
};

/// How many parts one call records: a few hundred kB, which every state store writes quickly.
const PARTS_PER_CALL: usize = 1_000;

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

    /// Creates the record of `snapshot` again: COMPLETE if its object exists in the store, else OPEN.
    /// [`Rebuilder::restore_parts`] records its parts. If another caller creates the same record at the same time, that
    /// record is kept.
    ///
    /// # Errors
    /// `NotFound` if the storage is not configured; `InvalidArgument` if the storage is of another kind now, or if the
    /// upload has expired.
    pub(in crate::gateway) async fn rebuild(&self, snapshot: &Snapshot) -> Result<()> {
        let storage = self.storages.get(&snapshot.storage_id)?;
        if storage.store.kind() != snapshot.store_kind {
            return Err(invalid_token("its storage is of another kind now"));
        }
        let times = self.records.times();
        let mut upload = snapshot.record(times.now, times.expires_at);
        if upload.expiry() <= times.now {
            return Err(invalid_token("its upload has expired"));
        }
        if let Some(verified) = self
            .own_finished_object(&storage, &upload, snapshot)
            .await?
        {
            // A finished upload is not in the index.
            upload.fingerprint = None;
            upload.file.file_size = Some(verified.found.size);
            let committed = self.records.committed(&upload, &storage, verified).await?;
            upload
                .apply(committed)
                .map_err(|error| Error::internal("rebuild a finished upload", error))?;
        }
        tracing::warn!(upload_id = %upload.id, phase = %upload.phase, "rebuilding a record that the state store lost");
        if self.records.create(&upload).await?.is_some() {
            // An identical create has made another upload in the meantime, which keeps the index entry.
            upload.fingerprint = None;
            self.records.create(&upload).await?;
        }
        Ok(())
    }

    /// Records the parts of `snapshot` that are missing from the OPEN record of the stream `writer`, as far as the
    /// store has them. Leaves the record unchanged if that is not possible.
    pub(in crate::gateway) async fn restore_parts(
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
            let started = Event::SessionStarted {
                session: session.clone(),
                // Its parts show which digest they have.
                integrity: Integrity::default(),
            };
            self.records
                .transition(upload, &started, Fence::Writer)
                .await?;
        }
        if upload.session.is_none() || upload.session != snapshot.session {
            return Ok(());
        }
        let storage = self.storages.get(&upload.storage_id)?;
        let Some(listed) = self.listed_parts(&storage, upload).await? else {
            if let Some(verified) = self.own_finished_object(&storage, upload, snapshot).await? {
                self.records
                    .complete(upload, &storage, verified, Fence::Writer)
                    .await?;
            }
            return Ok(());
        };
        let mut parts = snapshot_parts(snapshot, &listed);
        let is_same = |(known, part): (&Part, &Part)| known.receipt == part.receipt;
        let committed = upload.parts.committed() as usize;
        // Another writer has put other parts since the snapshot was taken.
        if parts.len() <= committed || !upload.parts.iter_committed().zip(&parts).all(is_same) {
            return Ok(());
        }
        let lost = parts.split_off(committed);
        for chunk in lost.chunks(PARTS_PER_CALL) {
            self.records
                .record_parts(&upload.id, upload.version, writer, chunk)
                .await?;
        }
        upload.parts.extend(lost);
        tracing::warn!(
            upload_id = %upload.id,
            committed_size = upload.committed_size(),
            "recorded parts again that the state store had lost"
        );
        Ok(())
    }

    /// The store's list of the parts in the upload's session. `None` if the upload has no session or the store does not
    /// know it.
    async fn listed_parts(
        &self,
        storage: &Storage,
        upload: &Upload,
    ) -> Result<Option<Vec<StoredPart>>> {
        if upload.session.is_none() {
            return Ok(None);
        }
        denials::listed_parts(storage, upload).await
    }

    /// The object that the upload became before its record was lost. Its MD5 is proven if the snapshot covers the whole
    /// file.
    async fn own_finished_object(
        &self,
        storage: &Storage,
        upload: &Upload,
        snapshot: &Snapshot,
    ) -> Result<Option<Verified>> {
        let Some(found) = storage.store.head(&upload.object_key).await? else {
            return Ok(None);
        };
        let verdict = verify(
            &Expected::of_snapshot(snapshot, upload).encrypted(storage.demand()),
            &storage.capabilities(),
            Some(&found),
            None,
        );
        match verdict {
            Verdict::Same => {}
            // The commit decides about it.
            Verdict::Different(_) => return Ok(None),
            Verdict::Absent | Verdict::Unknown => return Err(too_little()),
        }
        let mut digests = whole_digest(snapshot, found.size)?;
        digests.md5 = digests
            .md5
            .filter(|md5| found.md5.is_none_or(|stored| stored == *md5));
        digests.crc64nvme = found.crc64nvme.or(digests.crc64nvme);
        Ok(Some(Verified { digests, found }))
    }
}

/// The parts of `snapshot` that are in the store's list.
fn snapshot_parts(snapshot: &Snapshot, listed: &[StoredPart]) -> Vec<Part> {
    let by_name: HashMap<(u32, Option<WriterTag>), &StoredPart> = listed
        .iter()
        .filter(|part| part.writer.is_some() || part.cut == snapshot.cut)
        .filter_map(|part| Some(((part.number?, part.writer), part)))
        .collect();
    snapshot.parts_among(|number, writer| {
        let part = by_name.get(&(number, writer))?;
        Some(Listed {
            receipt: &part.receipt,
            size: part.size,
            md5: part.md5,
            crc64nvme: part.crc64nvme,
        })
    })
}

/// The digest of the whole file of `size` bytes, if the snapshot covers all of it.
fn whole_digest(snapshot: &Snapshot, size: u64) -> Result<Digests> {
    let state = snapshot.digest().filter(|_| snapshot.size() == size);
    let digest = state.map(FileDigest::resume).transpose();
    digest
        .map(|digest| digest.map(FileDigest::finish).unwrap_or_default())
        .map_err(|error| Error::internal("resume a file digest", error))
}
