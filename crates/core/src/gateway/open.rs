//! Creating an upload, and opening one for writing.

use std::sync::Arc;

use super::{
    Caller, Fence, Gateway, Open, Storage, Target, message::Takeover, state_lost,
    writer::writer_active,
};
use crate::{
    error::{Error, Kind, Reason, Result},
    state::{Creation, TakeoverWatch},
    upload::{
        Claims, Event, FileMetadata, Identity, Md5, Parts, Phase, Plan, Snapshot, TooLarge, Upload,
        UploadId, WriterTag, policy,
    },
};

/// How often a create may find an upload that is gone again when it is opened.
pub(super) const MAX_CREATES: usize = 5;

/// An upload that a stream has opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// It is the stream's to write, under this tag, until somebody takes it over.
    Writing(Upload, WriterTag, TakeoverWatch),
    /// It is being committed by somebody, or was left behind in it.
    Committing(Upload),
    /// It is finished.
    Finished(Upload),
}

// === impl Gateway ===

impl Gateway {
    /// Opens what a stream's first message names, and takes it over.
    pub(super) async fn open(
        &self,
        caller: &Caller,
        open: Open,
        snapshot: Option<&Snapshot>,
    ) -> Result<Opened> {
        let takeover = open.takeover;
        match (open.target, snapshot) {
            (Target::Upload(id), _) => self.open_known(caller, &id, takeover, snapshot).await,
            // It names the upload that the same create made.
            (Target::File { .. }, Some(snapshot)) => {
                self.open_known(caller, &snapshot.id, takeover, Some(snapshot))
                    .await
            }
            (Target::File { file, storage_id }, None) => {
                let how = (open.restart, takeover);
                self.open_file(caller, file, &storage_id, how).await
            }
        }
    }

    /// Opens an upload, with a snapshot also one that the state store lost.
    async fn open_known(
        &self,
        caller: &Caller,
        id: &UploadId,
        takeover: Takeover,
        snapshot: Option<&Snapshot>,
    ) -> Result<Opened> {
        let upload = match (self.get_upload(caller, id).await, snapshot) {
            (Err(error), Some(snapshot)) if error.kind() == Kind::NotFound => {
                self.rebuild(snapshot).await?;
                self.get_upload(caller, id).await?
            }
            (found, _) => found?,
        };
        if upload.is_live() {
            // Before it is taken over from a gateway that may have the storage.
            self.storages.get(&upload.storage_id)?;
        }
        let upload = if upload.phase == Phase::Open {
            let from = self.predecessor(&upload, takeover)?;
            // First, so that no later takeover goes unheard.
            let takeovers = self.state.watch_takeovers(id);
            let writer = WriterTag::random();
            let times = self.times();
            let taken = self
                .retry
                .run(|| self.state.take_over(id, writer, from, times))
                .await?;
            let mut upload = taken.ok_or_else(state_lost)?;
            if upload.phase == Phase::Open && upload.writer != Some(writer) {
                return Err(writer_active(self.settings.idle_timeout));
            }
            if let Some(snapshot) = snapshot.filter(|_| upload.phase == Phase::Open) {
                self.heal(&mut upload, writer, snapshot).await?;
            }
            if upload.phase == Phase::Open && !upload.claims.is_empty() {
                self.adopt(&mut upload, writer).await?;
            }
            if upload.phase == Phase::Open {
                return Ok(Opened::Writing(upload, writer, takeovers));
            }
            upload
        } else {
            upload
        };
        match upload.phase {
            Phase::Complete => Ok(Opened::Finished(upload)),
            Phase::Open | Phase::Committing => Ok(Opened::Committing(upload)),
            Phase::Aborted => Err(Error::precondition(
                Reason::WrongPhase,
                "the upload is aborted; create a new one",
            )
            .with("phase", upload.phase)),
        }
    }

    async fn open_file(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage_id: &str,
        (restart, takeover): (bool, Takeover),
    ) -> Result<Opened> {
        if let Some(file_id) = &file.file_id {
            let _: Md5 = file_id
                .parse()
                .map_err(|error| Error::invalid("file.file_id", format!("{error}")))?;
        }
        let storage = self.storages.get(storage_id)?;
        for _ in 0..MAX_CREATES {
            let writer = WriterTag::random();
            let new = self.new_upload(caller, file.clone(), &storage, Some(writer))?;
            let takeovers = self.state.watch_takeovers(&new.id);
            let mut found = match self.retry.run(|| self.state.create(&new)).await? {
                Creation::Created => return Ok(Opened::Writing(new, writer, takeovers)),
                Creation::Exists(found) => *found,
            };
            if restart {
                self.predecessor(&found, takeover)?;
                self.transition(&mut found, &Event::Abandoned, Fence::None)
                    .await?;
                self.discard(&found).await?;
                continue;
            }
            match self.open_known(caller, &found.id, takeover, None).await {
                // It was aborted in this very moment: the next create finds nothing.
                Err(error) if error.reason() == Reason::WrongPhase => {}
                opened => return opened,
            }
        }
        Err(Error::fault(
            "create an upload: the one found is gone each time",
        ))
    }

    /// The record of a new upload; its file is checked.
    pub(super) fn new_upload(
        &self,
        caller: &Caller,
        mut file: FileMetadata,
        storage: &Arc<Storage>,
        writer: Option<WriterTag>,
    ) -> Result<Upload> {
        policy::check(&file)?;
        policy::check_filters(&file, &storage.extensions, &storage.mimes)?;
        file.file_mime = policy::effective_mime(&file);
        // One digest has several spellings, and one fingerprint.
        let md5: Option<Md5> = file.file_id.as_deref().and_then(|text| text.parse().ok());
        file.file_id = md5.map(|md5| md5.to_string()).or(file.file_id);
        let plan = self.plan(&file, storage)?;
        let fingerprint = match (file.file_size, &file.file_id) {
            (Some(file_size), Some(file_id)) => {
                let identity = Identity {
                    owner: &caller.owner,
                    storage_id: &storage.id,
                    file_name: &file.file_name,
                    file_size,
                    file_id,
                };
                Some(identity.fingerprint(&self.secret()))
            }
            _ => None,
        };
        let id = UploadId::generate(fingerprint.as_ref());
        let times = self.times();
        Ok(Upload {
            version: 1,
            phase: Phase::Open,
            owner: caller.owner.clone(),
            storage_id: storage.id.clone(),
            store_kind: storage.store.kind(),
            object_key: policy::object_key(&storage.prefix, &id, &file.file_name),
            plan,
            fingerprint,
            session: None,
            writer,
            lease: None,
            parts: Parts::default(),
            claims: Claims::default(),
            opaque_file_id: false,
            object: None,
            created_at: times.now,
            updated_at: times.now,
            expires_at: times.expires_at,
            ends_at: times.now.plus(self.settings.upload_max_age),
            swept: false,
            id,
            file,
        })
    }

    fn plan(&self, file: &FileMetadata, storage: &Storage) -> Result<Plan> {
        let planned = match (file.file_size, self.settings.max_file_size) {
            (Some(size), Some(max)) if size > max => Err(TooLarge { max }),
            (Some(size), _) => Plan::known(size, storage.part_size, &storage.limits),
            (None, _) => Ok(Plan::unknown(storage.part_size, &storage.limits)),
        };
        planned.map_err(|TooLarge { max }| too_large(max))
    }

    /// The largest size in bytes that `upload` may come to.
    pub(super) fn max_size(&self, upload: &Upload) -> u64 {
        let capacity = upload.plan.capacity();
        self.settings
            .max_file_size
            .map_or(capacity, |max| max.min(capacity))
    }
}

/// The refusal of a file above `max` bytes.
pub(super) fn too_large(max: u64) -> Error {
    Error::invalid(
        "file.file_size",
        format!("at most {max} bytes can be stored"),
    )
    .because(Reason::FileTooLarge)
    .with("max_file_size", max)
}
