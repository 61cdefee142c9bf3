//! Creates uploads, and opens uploads for writing.

use std::{sync::Arc, time::Duration};

use super::heartbeat::{predecessor, writer_active};
use crate::{
    error::{Error, Kind, Reason, Result},
    gateway::{
        audit::audit,
        caller::{Action, Caller},
        message::{Open, Takeover, Target},
        records::Records,
        recovery::{inspect::Inspector, rebuild::Rebuilder, session::Sessions},
        refusal::{aborted, budget_too_small, nothing_left, state_lost},
        storage::{Storage, Storages},
    },
    meter::{Done, Meter},
    state::{Predecessor, TakeoverWatch},
    upload::{
        AbortReason, Denied, FileMetadata, Phase, Snapshot, Upload, UploadId, WriterTag, policy,
    },
};

/// How often a create is repeated if the upload that it finds ends before it can be opened.
const MAX_CREATES: usize = 5;

/// The result of opening an upload.
#[derive(Debug)]
pub(super) enum Opened {
    /// The stream writes to the upload, under this tag, until another stream takes over.
    Writing(Upload, WriterTag, TakeoverWatch),
    /// Another committer is committing the upload, or has died.
    Committing(Upload),
    /// The upload is complete.
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
    /// In bytes.
    pub(super) memory_budget: u64,
    pub(super) meter: Arc<dyn Meter>,
}

// === impl Opener ===

impl Opener {
    /// Opens the upload that the first message names, and takes it over.
    pub(super) async fn open(
        &self,
        caller: &Caller,
        open: Open,
        snapshot: Option<&Snapshot>,
    ) -> Result<Opened> {
        let takeover = open.takeover;
        match (open.target, snapshot) {
            (Target::Upload(id), _) => self.open_known(caller, &id, takeover, snapshot).await,
            // The token names the upload that an identical create made.
            (Target::File { .. }, Some(snapshot)) => {
                self.open_known(caller, &snapshot.id, takeover, Some(snapshot))
                    .await
            }
            (Target::File { file, storage_id }, None) => {
                let how = (open.restart, takeover);
                self.open_file(caller, (file, None), &storage_id, how).await
            }
            (
                Target::Copy {
                    of,
                    file,
                    storage_id,
                    from: _,
                },
                _,
            ) => {
                let how = (open.restart, takeover);
                self.open_file(caller, (*file, Some(of)), &storage_id, how)
                    .await
            }
        }
    }

    /// Opens an upload. With a snapshot, the state store may have lost its record.
    async fn open_known(
        &self,
        caller: &Caller,
        id: &UploadId,
        takeover: Takeover,
        snapshot: Option<&Snapshot>,
    ) -> Result<Opened> {
        let upload = match (self.find(caller, id).await, snapshot) {
            (Err(error), Some(snapshot)) if error.kind() == Kind::NotFound => {
                self.rebuilder.rebuild(snapshot).await?;
                self.find(caller, id).await?
            }
            (found, _) => found?,
        };
        if upload.is_live() {
            // Checked before the takeover: the other gateway may have the storage configured.
            let storage = self.storages.get(&upload.storage_id)?;
            self.check_budget(&upload, &storage)?;
        }
        let upload = if upload.phase == Phase::Open {
            let from = self.predecessor(&upload, takeover)?;
            // Watched before the takeover, so that no later one is missed.
            let takeovers = self.records.watch_takeovers(id);
            let writer = WriterTag::random();
            let taken = self.records.take_over(id, writer, from).await?;
            let mut upload = taken.ok_or_else(state_lost)?;
            if upload.phase == Phase::Open && upload.writer != Some(writer) {
                return Err(writer_active(self.idle_timeout));
            }
            if upload.phase == Phase::Open {
                self.meter.note(Done::TookOver);
            }
            if let Some(snapshot) = snapshot.filter(|_| upload.phase == Phase::Open) {
                self.rebuilder
                    .restore_parts(&mut upload, writer, snapshot)
                    .await?;
                if upload.phase == Phase::Open && lacks_everything(&upload, snapshot) {
                    let (denied, why) = (Denied::Session, nothing_left());
                    return Err(self.inspector.refuse_denied(&mut upload, denied, why).await);
                }
            }
            if upload.phase == Phase::Open && upload.evidence.denial.is_some() {
                self.inspector.reconsider(&mut upload).await?;
            }
            if upload.phase == Phase::Open && (upload.is_cut_by_client || !upload.claims.is_empty())
            {
                self.inspector.adopt(&mut upload, writer).await?;
                let storage = self.storages.get(&upload.storage_id)?;
                self.check_budget(&upload, &storage)?;
            }
            if upload.phase == Phase::Open {
                return Ok(Opened::Writing(upload, writer, takeovers));
            }
            upload
        } else if upload.phase == Phase::Committing {
            // The commit needs the parts.
            self.records.get_upload(caller, Action::Send, id).await?
        } else {
            upload
        };
        match upload.phase {
            Phase::Complete => Ok(Opened::Finished(upload)),
            Phase::Open | Phase::Committing => Ok(Opened::Committing(upload)),
            Phase::Aborted => Err(aborted(upload.abort_reason)),
            Phase::Deleting => Err(Error::upload_not_found(id)),
        }
    }

    async fn open_file(
        &self,
        caller: &Caller,
        (file, copy_of): (FileMetadata, Option<UploadId>),
        storage_id: &str,
        (restart, takeover): (bool, Takeover),
    ) -> Result<Opened> {
        policy::check_streamed(&file)?;
        let storage = self.storages.for_caller(caller, storage_id)?;
        // An upload that replaces another one needs no room.
        let mut is_replacement = false;
        for _ in 0..MAX_CREATES {
            let writer = WriterTag::random();
            let (file, copy_of) = (file.clone(), copy_of.as_ref());
            let new = self
                .records
                .new_upload(caller, file, &storage, Some(writer), copy_of)?;
            let takeovers = self.records.watch_takeovers(&new.id);
            let found = match is_replacement {
                true => self.records.create(&new).await?,
                false => self.records.create_if_room(&new).await?,
            };
            let Some(mut found) = found else {
                audit(&caller.owner, "create", Some(&new.id), &Ok(()));
                return Ok(Opened::Writing(new, writer, takeovers));
            };
            if restart {
                self.predecessor(&found, takeover)?;
                self.records
                    .abandon(&mut found, AbortReason::Restarted)
                    .await?;
                self.sessions.discard(&found).await?;
                is_replacement = true;
                continue;
            }
            let denial = found.evidence.denial.map(|denial| denial.denied);
            if denial == Some(Denied::Session) && self.inspector.supersede(&mut found).await? {
                is_replacement = true;
                continue;
            }
            match self.open_known(caller, &found.id, takeover, None).await {
                // It was aborted, or the state store lost it, at the same time. The next create does not find it.
                Err(error)
                    if error.reason() == Reason::UploadNotFound
                        || error.metadata().get("phase").map(String::as_str) == Some("aborted") => {
                }
                opened => return opened,
            }
        }
        Err(Error::fault(
            "create an upload: each upload that was found ended before it could be opened",
        ))
    }

    /// Checks that the next part of an upload, which another gateway may have planned, fits the memory budget. If the size
    /// of the file is known, no later part is larger. Otherwise each part is checked when it begins.
    fn check_budget(&self, upload: &Upload, storage: &Storage) -> Result<()> {
        let next = upload.span(upload.parts.committed() + 1);
        match next.filter(|next| upload.phase == Phase::Open && !storage.holds_part(next.size)) {
            Some(next) => Err(budget_too_small(next.size, self.memory_budget)),
            None => Ok(()),
        }
    }

    async fn find(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        self.records.get_summary(caller, Action::Send, id).await
    }

    fn predecessor(&self, upload: &Upload, takeover: Takeover) -> Result<Predecessor> {
        predecessor(upload, takeover, self.records.now(), self.idle_timeout)
    }
}

/// Whether the store has no part of the session that a resume token names.
fn lacks_everything(upload: &Upload, snapshot: &Snapshot) -> bool {
    let is_same_session = upload.session.is_some() && upload.session == snapshot.session;
    is_same_session && upload.parts.is_empty() && snapshot.size() > 0
}
