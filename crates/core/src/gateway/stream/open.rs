//! Creating an upload, and opening one for writing.

use std::{sync::Arc, time::Duration};

use super::heartbeat::{predecessor, writer_active};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        message::{Open, Takeover, Target},
        records::{Fence, Records},
        recovery::{inspect::Inspector, rebuild::Rebuilder, session::Sessions},
        refusal::state_lost,
        settings::Caller,
        storage::Storages,
    },
    state::{Creation, Predecessor, TakeoverWatch},
    upload::{Event, FileMetadata, Md5, Phase, Snapshot, Upload, UploadId, WriterTag},
};

/// How often a create may find an upload that has ended before it can be opened.
const MAX_CREATES: usize = 5;

/// An upload that a stream has opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// The stream writes to it, under this tag, until another stream takes over.
    Writing(Upload, WriterTag, TakeoverWatch),
    /// It is being committed by another committer, or its committer died.
    Committing(Upload),
    /// It is finished.
    Finished(Upload),
}

/// Creates uploads, and opens them for writing.
#[derive(Debug)]
pub(super) struct Opener {
    pub(super) records: Arc<Records>,
    pub(super) storages: Storages,
    pub(super) sessions: Arc<Sessions>,
    pub(super) inspector: Arc<Inspector>,
    pub(super) rebuilder: Rebuilder,
    pub(super) idle_timeout: Duration,
}

// === impl Opener ===

impl Opener {
    /// Opens the upload that a stream's first message names, and takes it over.
    pub(super) async fn open(
        &self,
        caller: &Caller,
        open: Open,
        snapshot: Option<&Snapshot>,
    ) -> Result<Opened> {
        let takeover = open.takeover;
        match (open.target, snapshot) {
            (Target::Upload(id), _) => self.open_known(caller, &id, takeover, snapshot).await,
            // It names the upload that an identical create made.
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

    /// Opens an upload; with a snapshot also one whose record the state store lost.
    async fn open_known(
        &self,
        caller: &Caller,
        id: &UploadId,
        takeover: Takeover,
        snapshot: Option<&Snapshot>,
    ) -> Result<Opened> {
        let upload = match (self.records.get_upload(caller, id).await, snapshot) {
            (Err(error), Some(snapshot)) if error.kind() == Kind::NotFound => {
                self.rebuilder.rebuild(snapshot).await?;
                self.records.get_upload(caller, id).await?
            }
            (found, _) => found?,
        };
        if upload.is_live() {
            // Before it is taken over from a gateway that may have the storage configured.
            self.storages.get(&upload.storage_id)?;
        }
        let upload = if upload.phase == Phase::Open {
            let from = self.predecessor(&upload, takeover)?;
            // First, so that no later takeover is missed.
            let takeovers = self.records.watch_takeovers(id);
            let writer = WriterTag::random();
            let taken = self.records.take_over(id, writer, from).await?;
            let mut upload = taken.ok_or_else(state_lost)?;
            if upload.phase == Phase::Open && upload.writer != Some(writer) {
                return Err(writer_active(self.idle_timeout));
            }
            if let Some(snapshot) = snapshot.filter(|_| upload.phase == Phase::Open) {
                self.rebuilder.heal(&mut upload, writer, snapshot).await?;
            }
            if upload.phase == Phase::Open && !upload.claims.is_empty() {
                self.inspector.adopt(&mut upload, writer).await?;
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
            let new = self
                .records
                .new_upload(caller, file.clone(), &storage, Some(writer))?;
            let takeovers = self.records.watch_takeovers(&new.id);
            let mut found = match self.records.create(&new).await? {
                Creation::Created => return Ok(Opened::Writing(new, writer, takeovers)),
                Creation::Exists(found) => *found,
            };
            if restart {
                self.predecessor(&found, takeover)?;
                self.records
                    .transition(&mut found, &Event::Abandoned, Fence::None)
                    .await?;
                self.sessions.discard(&found).await?;
                continue;
            }
            match self.open_known(caller, &found.id, takeover, None).await {
                // It was aborted at the same moment: the next create finds nothing.
                Err(error) if error.reason() == Reason::WrongPhase => {}
                opened => return opened,
            }
        }
        Err(Error::fault(
            "create an upload: the upload that was found ended each time",
        ))
    }

    fn predecessor(&self, upload: &Upload, takeover: Takeover) -> Result<Predecessor> {
        predecessor(upload, takeover, self.records.now(), self.idle_timeout)
    }
}
