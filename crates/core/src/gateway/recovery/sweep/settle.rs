//! What a pass does with one due upload.

use std::sync::Arc;

use tokio::task::JoinError;

use super::{CLOCK_MARGIN, Ended, MAX_COMMITS, MAX_REMEMBERED, Pass};
use crate::{
    error::{Error, Reason, Result},
    gateway::{commit::Content, records::Fence},
    upload::{AbortReason, Denied, Digests, Event, Phase, Upload},
};

// === impl Pass ===

impl Pass<'_> {
    pub(super) async fn expire(&mut self, mut upload: Upload) -> Result<()> {
        let sweeper = self.sweeper;
        let storage = sweeper.storages.get(&upload.storage_id)?;
        let seen = upload.updated_at;
        if self.sweep.dry_run {
            let count = match storage.store.head(&upload.object_key).await? {
                Some(_) => &mut self.report.completed,
                None => &mut self.report.expired,
            };
            *count += 1;
            tracing::info!(upload_id = %upload.id, "an expired upload would be aborted");
            return Ok(());
        }
        match sweeper
            .inspector
            .find_committed(&storage, &mut upload)
            .await
        {
            Ok(true) => {
                self.report.completed += 1;
                return Ok(());
            }
            Ok(false) => {}
            // This upload did not make the object.
            Err(_) if upload.phase == Phase::Aborted => {
                self.report.expired += 1;
                return self.clear(upload).await;
            }
            Err(error) if matches!(error.reason(), Reason::WrongPhase | Reason::WriterActive) => {
                return Ok(());
            }
            Err(_) if upload.phase == Phase::Committing => return Ok(()),
            Err(error) => return Err(error),
        }
        if upload.may_have_object() {
            sweeper
                .inspector
                .confirm(&mut upload, Denied::NoObject)
                .await?;
        }
        let expired = Event::Abandoned {
            reason: AbortReason::Expired,
            now: sweeper.records.now(),
        };
        let ended = sweeper.records.end_untouched(&mut upload, expired, seen);
        if !ended.await? {
            // A caller changed the upload at the same time.
            return Ok(());
        }
        self.report.expired += 1;
        tracing::debug!(upload_id = %upload.id, "an expired upload was aborted");
        sweeper.sessions.discard(&upload).await
    }

    /// Makes the second observation of an OPEN upload, or finds that the store has again what it denied.
    pub(super) async fn reconsider(&mut self, mut upload: Upload) -> Result<()> {
        if self.sweep.dry_run {
            return Ok(());
        }
        let reconsidered = self.sweeper.inspector.reconsider(&mut upload).await;
        match reconsidered {
            Err(error) if upload.phase == Phase::Aborted => {
                self.report.expired += 1;
                tracing::debug!(upload_id = %upload.id, %error, "an upload was rejected");
                self.clear(upload).await
            }
            reconsidered => reconsidered,
        }
    }

    /// Ends an upload that has been COMMITTING until its maximum age.
    pub(super) async fn end_commit(&mut self, mut upload: Upload) -> Result<()> {
        if !self.sweep.dry_run {
            self.sweeper.commits.end(&mut upload).await?;
        }
        self.report.finished_commits += 1;
        tracing::debug!(upload_id = %upload.id, phase = %upload.phase, dry_run = self.sweep.dry_run, "ended a commit that was too old");
        if upload.phase == Phase::Aborted {
            self.clear(upload).await?;
        }
        Ok(())
    }

    /// Finishes a commit whose committer died, beside the pass.
    pub(super) fn finish_commit(&mut self, mut upload: Upload) {
        if self.sweep.dry_run {
            self.report.finished_commits += 1;
            return;
        }
        if self.commits.len() >= MAX_COMMITS {
            if self.waiting.len() < MAX_REMEMBERED {
                self.waiting.push_back(upload.id);
            }
            return;
        }
        let commits = Arc::clone(&self.sweeper.commits);
        self.commits.spawn(async move {
            let committed_size = upload.parts.committed_size();
            let file_size = upload.file.file_size.unwrap_or(committed_size);
            let content = Content::Parts {
                file_size,
                proven: Digests::default(),
            };
            let committed = commits.commit(&mut upload, content).await;
            (upload, committed)
        });
    }

    pub(super) async fn commit_ended(&mut self, ended: Result<Ended, JoinError>) -> Result<()> {
        let (upload, committed) =
            ended.map_err(|error| Error::internal("finish a commit", error))?;
        if let Err(error) = committed {
            match error.reason() {
                // Another committer was faster, or the upload is OPEN again.
                Reason::WrongPhase | Reason::TakenOver | Reason::Incomplete => return Ok(()),
                _ if upload.is_live() => {
                    return self.note(&upload.id, Err(error), &upload.storage_id).await;
                }
                _ => {
                    tracing::debug!(upload_id = %upload.id, %error, "a commit was rejected");
                    self.report.finished_commits += 1;
                    let storage_id = upload.storage_id.clone();
                    let cleared = self.clear(upload).await;
                    return self.log(cleared, &storage_id).await;
                }
            }
        }
        self.report.finished_commits += 1;
        tracing::debug!(upload_id = %upload.id, "finished the commit of a dead committer");
        Ok(())
    }

    /// Deletes a file that has expired, also by what the store keeps of its record: a fail-over of Redis can lose acknowledged changes.
    pub(super) async fn delete_expired(&mut self, mut upload: Upload) -> Result<()> {
        let records = &self.sweeper.records;
        if let Some(kept) = records.kept_longer(&upload).await? {
            return match self.sweep.dry_run {
                true => Ok(()),
                false => records.transition(&mut upload, &kept, Fence::None).await,
            };
        }
        if !self.sweep.dry_run {
            let by = records.now().minus(CLOCK_MARGIN);
            let expired = Event::FileExpired { by };
            let deleted = self.sweeper.sessions.delete_file(&mut upload, &expired);
            match deleted.await {
                // A caller keeps it longer.
                Err(error) if error.reason() == Reason::WrongPhase => return Ok(()),
                deleted => deleted?,
            }
        }
        self.report.expired_files += 1;
        tracing::info!(upload_id = %upload.id, dry_run = self.sweep.dry_run, "deleted a file that has expired");
        Ok(())
    }

    /// Removes what the store has of an ABORTED or DELETING upload. At its expiry also what clients may have sent after it
    /// ended, while their signatures were still valid, and what a late commit made.
    pub(super) async fn clear(&mut self, mut upload: Upload) -> Result<()> {
        let sweeper = self.sweeper;
        if self.sweep.dry_run {
            self.report.cleared += 1;
            return Ok(());
        }
        sweeper.sessions.discard(&upload).await?;
        let is_last = sweeper.records.note_cleared(&mut upload).await?;
        self.report.cleared += u64::from(is_last);
        tracing::debug!(upload_id = %upload.id, is_last, "cleared an upload that has ended");
        Ok(())
    }
}
