//! Direct uploads: the gateway signs requests, and the client sends the bytes to the store itself. What the client
//! reports is a claim.

mod check;
mod resume;
mod session;
pub(super) mod step;

use std::sync::Arc;

use self::{
    check::{
        check_open, check_session, incomplete, is_direct, known_parts, part_count, to_known_part,
    },
    step::{KnownPart, Next, PartToSign, Report, SignedStep, StepType},
};
use super::{
    audit::audit,
    caller::{Action, Caller},
    commit::Commits,
    records::{Fence, Records},
    recovery::{
        inspect::Inspector,
        session::{Sessions, store_session},
    },
    refusal::{aborted, nothing_left, wrong_phase},
    storage::{Storage, Storages},
};
use crate::{
    blobs::{
        contradiction,
        sign::{SignedRequest, ToSign},
    },
    error::{Error, Reason, Result},
    upload::{
        Claim, Digests, Event, FileMetadata, MAX_CUT, Phase, Present, SINGLE_PUT_MAX, StoreKind,
        Upload, UploadId, policy,
    },
};

/// The largest number of parts that one call signs.
pub const MAX_SIGNED_PARTS: usize = 100;

/// The largest number of parts that one call reports: the largest part count of any store.
const MAX_REPORTED_PARTS: usize = 50_000;

/// How often a create is repeated if the upload that it finds ends before it can be resumed.
const MAX_CREATES: usize = 5;

/// Signs requests for clients, and keeps the records of their uploads.
#[derive(Debug)]
pub struct Signing {
    records: Arc<Records>,
    storages: Storages,
    sessions: Arc<Sessions>,
    inspector: Arc<Inspector>,
    commits: Arc<Commits>,
}

// === impl Signing ===

impl Signing {
    pub(super) fn new(
        records: Arc<Records>,
        storages: Storages,
        sessions: Arc<Sessions>,
        inspector: Arc<Inspector>,
        commits: Arc<Commits>,
    ) -> Self {
        Self {
            records,
            storages,
            sessions,
            inspector,
            commits,
        }
    }

    /// The kind of store that a file would go to. Checks the file as [`Signing::create_signed`] does.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field; `NotFound` if there is no such storage.
    pub fn residence(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage_id: &str,
    ) -> Result<StoreKind> {
        let storage = self.storages.for_caller(caller, storage_id)?;
        let upload = self.new_signed(caller, file, &storage)?;
        Ok(upload.store_kind)
    }

    /// Creates an upload whose bytes the client sends to the store itself, or finds the upload of an identical create.
    /// Signs its first step: `DirectUpload` or `ChunkedUpload`, or `Parts` if the store has parts already.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field; `NotFound` if there is no such storage.
    pub async fn create_signed(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage_id: &str,
    ) -> Result<SignedStep> {
        let storage = self.storages.for_caller(caller, storage_id)?;
        // An upload that replaces another one needs no room.
        let mut is_replacement = false;
        for _ in 0..MAX_CREATES {
            let new = self.new_signed(caller, file.clone(), &storage)?;
            let found = match is_replacement {
                true => self.records.create(&new).await?,
                false => self.records.create_if_room(&new).await?,
            };
            let Some(found) = found else {
                audit(&caller.owner, "create", Some(&new.id), &Ok(()));
                return self.first_step(&storage, &new).await;
            };
            if let Some(step) = self.resume_signed(found).await? {
                return Ok(step);
            }
            is_replacement = true;
        }
        Err(Error::fault(
            "create an upload: each upload that was found ended before it could be resumed",
        ))
    }

    /// Records what a client reports, if the upload is OPEN, and returns the record.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a part that is not in the plan; `FailedPrecondition` if another session is
    /// recorded, or if the size of the file is unknown.
    pub async fn report(&self, caller: &Caller, id: &UploadId, report: Report) -> Result<Upload> {
        if report.claims.len() > MAX_REPORTED_PARTS {
            let message = format!("at most {MAX_REPORTED_PARTS} parts in one report");
            return Err(Error::invalid("part_list", message));
        }
        let mut upload = self.claim(caller, id, &report.claims).await?;
        if let Some(session) = report.resumable_id.filter(|id| !id.is_empty())
            && upload.phase == Phase::Open
        {
            self.set_session(&mut upload, session).await?;
        }
        Ok(upload)
    }

    /// Does what [`Signing::report`] does, and then signs the next step. For [`Next::Nothing`] that is a step `Parts`
    /// with the recorded and claimed parts.
    ///
    /// # Errors
    /// The errors of the report and of the step; `FailedPrecondition` if the upload is not OPEN.
    pub async fn sign_next(
        &self,
        caller: &Caller,
        id: &UploadId,
        mut report: Report,
        next: Next,
    ) -> Result<SignedStep> {
        match next {
            Next::Part(part) => {
                report.claims.push(part.into());
                let mut upload = self.report(caller, id, report).await?;
                self.admit_clients(&mut upload).await?;
                self.part_step(&upload, part).await
            }
            Next::Finish => {
                self.report(caller, id, report).await?;
                self.sign_finish(caller, id).await
            }
            Next::Nothing => {
                let open = self.report(caller, id, report).await?;
                check_open(&open)?;
                let records = &self.records;
                let mut upload = records.get_upload(caller, Action::Send, id).await?;
                if upload.is_cut_by_client {
                    // Only the store knows where the claimed parts begin.
                    let storage = self.storages.get(&upload.storage_id)?;
                    let stored = self.inspector.stored_parts(&storage, &upload).await?;
                    let present = stored.ok_or_else(contradiction)?;
                    upload.plan = present.plan;
                }
                let known = known_parts(&upload);
                self.parts_step(&upload, known).await
            }
        }
    }

    /// Signs one part, and records its MD5 as a claim.
    ///
    /// # Errors
    /// As [`Signing::sign_parts`].
    pub async fn sign_part(
        &self,
        caller: &Caller,
        id: &UploadId,
        part: PartToSign,
    ) -> Result<SignedStep> {
        let mut upload = self.claim(caller, id, &[part.into()]).await?;
        self.admit_clients(&mut upload).await?;
        self.part_step(&upload, part).await
    }

    /// Signs up to [`MAX_SIGNED_PARTS`] parts, and records their MD5s as claims.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a part that is not in the plan; `FailedPrecondition` if the upload is not
    /// OPEN, if the size of the file is unknown, if the store needs a session that does not exist yet, if a stream has sent
    /// other bytes of a part, or with `NotSupported` if the store takes no parts from clients after those of a stream.
    pub async fn sign_parts(
        &self,
        caller: &Caller,
        id: &UploadId,
        parts: &[PartToSign],
    ) -> Result<Vec<SignedStep>> {
        if parts.len() > MAX_SIGNED_PARTS {
            let message = format!("at most {MAX_SIGNED_PARTS} parts in one call");
            return Err(Error::invalid("parts", message));
        }
        let claims: Vec<Claim> = parts.iter().map(|&part| part.into()).collect();
        let mut upload = self.claim(caller, id, &claims).await?;
        self.admit_clients(&mut upload).await?;
        let mut steps = Vec::with_capacity(parts.len());
        for &part in parts {
            steps.push(self.part_step(&upload, part).await?);
        }
        Ok(steps)
    }

    /// Signs the commit of all parts, after requesting their list from the store. Can be repeated; the upload stays
    /// OPEN. If it is COMPLETE, the answer to an earlier commit was lost, and there is nothing to send.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` with `Incomplete` and the missing parts.
    pub async fn sign_finish(&self, caller: &Caller, id: &UploadId) -> Result<SignedStep> {
        let records = &self.records;
        let mut upload = records.get_upload(caller, Action::Send, id).await?;
        if upload.phase == Phase::Complete {
            return Ok(unsigned_step(&upload, StepType::Finish));
        }
        check_open(&upload)?;
        part_count(&upload)?;
        let storage = self.storages.get(&upload.storage_id)?;
        check_session(&storage, &upload)?;
        let Some(stored) = self.inspector.stored_parts(&storage, &upload).await? else {
            self.inspector
                .session_lost(&mut upload, nothing_left())
                .await?;
            return Err(wrong_phase(upload.phase));
        };
        if !stored.is_whole(upload.file.file_size) {
            return Err(incomplete(&upload, &stored));
        }
        self.records
            .transition(&mut upload, &Event::CommitSigned, Fence::None)
            .await?;
        let parts = stored.named();
        let commit = ToSign::Commit {
            session: store_session(&upload),
            object: &storage.new_object(&upload, Digests::default()),
            parts: &parts,
        };
        self.step(&storage, &upload, StepType::Finish, &commit)
            .await
    }

    /// Verifies the object that a client made, and marks the upload COMPLETE. Can be repeated.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` with `Incomplete` and the missing parts if there is no object yet;
    /// `FailedPrecondition` with `PartReplaced`, or `DataLoss`, if the object is not the upload's: it is deleted and
    /// the upload is ABORTED.
    pub async fn complete_upload(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        let completed = self.complete(caller, id).await;
        audit(&caller.owner, "complete", Some(id), &completed);
        completed
    }

    async fn complete(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        let records = &self.records;
        let mut upload = records.get_upload(caller, Action::Complete, id).await?;
        match upload.phase {
            Phase::Complete => return Ok(upload),
            Phase::Committing => return self.commits.join(upload).await,
            Phase::Aborted => return Err(aborted(upload.abort_reason)),
            Phase::Deleting => return Err(Error::upload_not_found(id)),
            Phase::Open => {}
        }
        part_count(&upload)?;
        let storage = self.storages.get(&upload.storage_id)?;
        if self.inspector.find_committed(&storage, &mut upload).await? {
            return Ok(upload);
        }
        let stored = match check_session(&storage, &upload) {
            Ok(()) => self.inspector.stored_parts(&storage, &upload).await?,
            Err(_) => None,
        };
        let stored = stored.unwrap_or_else(|| Present::new(&upload, &storage.capabilities(), &[]));
        Err(incomplete(&upload, &stored))
    }

    /// The record of a new upload whose bytes the client sends to the store itself.
    fn new_signed(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage: &Arc<Storage>,
    ) -> Result<Upload> {
        policy::check_signed(&file)?;
        let is_chunked = file.file_size.is_some_and(|size| size > SINGLE_PUT_MAX);
        let mut upload = self.records.new_upload(caller, file, storage, None, None)?;
        upload.opaque_file_id = is_chunked;
        upload.is_cut_by_client = is_chunked && !storage.capabilities().binds_part_size;
        Ok(upload)
    }

    /// The first step of an upload.
    async fn first_step(&self, storage: &Storage, upload: &Upload) -> Result<SignedStep> {
        let promised = upload.promised_md5().map(Digests::from);
        let object = storage.new_object(upload, promised.unwrap_or_default());
        if is_direct(storage, upload) {
            let put = ToSign::PutObject {
                object: &object,
                size: upload.file.file_size.unwrap_or(0),
            };
            return self
                .step(storage, upload, StepType::DirectUpload, &put)
                .await;
        }
        let begin = ToSign::Begin { object: &object };
        self.step(storage, upload, StepType::ChunkedUpload, &begin)
            .await
    }

    /// Records claims, if the upload is OPEN.
    async fn claim(&self, caller: &Caller, id: &UploadId, claims: &[Claim]) -> Result<Upload> {
        let claimed = self.records.claim(id, &caller.owner, claims);
        let Some(upload) = claimed.await? else {
            // It does not exist, or not for this caller.
            let records = &self.records;
            records.get_summary(caller, Action::Send, id).await?;
            return Err(Error::upload_not_found(id));
        };
        if upload.phase == Phase::Open {
            part_count(&upload)?;
            let last = upload.last_part();
            let is_planned = |claim: &Claim| (1..=last).contains(&claim.number);
            if !claims.iter().all(is_planned) {
                let message = format!("the parts of this upload are 1 to {last}");
                return Err(Error::invalid("part", message));
            }
        }
        Ok(upload)
    }

    async fn part_step(&self, upload: &Upload, part: PartToSign) -> Result<SignedStep> {
        check_open(upload)?;
        let storage = self.storages.get(&upload.storage_id)?;
        check_session(&storage, upload)?;
        if upload.parts.contradict(&part.into()) {
            let message = format!(
                "part {} was sent before, with other bytes or with an MD5 that is not known; compare the crc64nvme of the stored \
                 part, and leave it out if it is the same",
                part.number
            );
            return Err(
                Error::precondition(Reason::PrefixMismatch, message).with("part", part.number)
            );
        }
        if upload.cut > MAX_CUT {
            return Err(too_many_cuts());
        }
        let size = match upload.span(part.number) {
            // The client decides, and the request does not bind it.
            _ if upload.is_cut_by_client => upload.plan.max_part_size(),
            Some(span) => span.size,
            None => return Err(Error::fault("sign a part: it is outside the plan")),
        };
        let put = ToSign::PutPart {
            session: store_session(upload),
            number: part.number,
            cut: upload.cut,
            size,
            md5: part.md5,
        };
        self.step(&storage, upload, StepType::PartUpload, &put)
            .await
    }

    /// The step that shows a client the parts that the store has.
    async fn present_step(
        &self,
        storage: &Storage,
        upload: &Upload,
        present: &Present,
    ) -> Result<SignedStep> {
        let known = present
            .parts
            .values()
            .map(|part| to_known_part(storage, upload, part))
            .collect();
        let mut step = self.parts_step(upload, known).await?;
        step.part_size = present.plan.part_size().unwrap_or(0);
        Ok(step)
    }

    async fn parts_step(&self, upload: &Upload, parts: Vec<KnownPart>) -> Result<SignedStep> {
        let storage = self.storages.get(&upload.storage_id)?;
        let list = ToSign::ListParts {
            session: store_session(upload),
        };
        // Clients only need the list to find the session.
        let has_session = storage.capabilities().creates_sessions && upload.session.is_some();
        let mut step = match has_session {
            true => self.step(&storage, upload, StepType::Parts, &list).await?,
            false => unsigned_step(upload, StepType::Parts),
        };
        step.parts = parts;
        Ok(step)
    }

    async fn step(
        &self,
        storage: &Storage,
        upload: &Upload,
        kind: StepType,
        request: &ToSign<'_>,
    ) -> Result<SignedStep> {
        let signed = storage.store.sign(request, self.records.clock()).await?;
        Ok(signed_step(upload, kind, signed))
    }
}

fn too_many_cuts() -> Error {
    Error::precondition(
        Reason::SessionInUse,
        "clients have cut this file into parts of too many different sizes; create the upload again",
    )
}

/// A step without a request.
fn unsigned_step(upload: &Upload, kind: StepType) -> SignedStep {
    signed_step(upload, kind, SignedRequest::default())
}

fn signed_step(upload: &Upload, kind: StepType, request: SignedRequest) -> SignedStep {
    SignedStep {
        kind,
        request,
        upload_id: upload.id.clone(),
        store_kind: upload.store_kind,
        part_size: upload.plan.part_size().unwrap_or(0),
        parts: Vec::new(),
    }
}
