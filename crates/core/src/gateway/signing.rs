//! Bytes straight to the store: the gateway signs, the client sends, and what the client says of it is only a claim.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Caller, Gateway, Storage,
    inspect::incomplete,
    open::MAX_CREATES,
    part::new_object,
    session::store_session,
    step::{KnownPart, Next, PartToSign, Report, SignedStep, StepType},
};
use crate::{
    blobs::sign::{SignedRequest, ToSign},
    error::{Error, Reason, Result},
    state::Creation,
    upload::{
        Claim, FileMetadata, Md5, Part, Phase, SINGLE_PUT_MAX, Span, StoreKind, Upload, UploadId,
    },
};

/// The most parts that one call signs.
pub const MAX_SIGNED_PARTS: usize = 100;

/// The most parts that one call reports: all that an object can have on any store.
const MAX_REPORTED_PARTS: usize = 50_000;

// === impl Gateway ===

impl Gateway {
    /// Tells which kind of store a file would go to; checks it as [`Gateway::create_signed`] does.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field; `NotFound` where there is no such storage.
    pub fn residence(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage_id: &str,
    ) -> Result<StoreKind> {
        let storage = self.storages.get(storage_id)?;
        let upload = self.new_signed(caller, file, &storage)?;
        Ok(upload.store_kind)
    }

    /// Creates an upload whose bytes the client sends itself, or finds the one the same create made before, and signs its
    /// first step: `DirectUpload`, `ChunkedUpload`, or `Parts` when the store has some.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field; `NotFound` where there is no such storage.
    pub async fn create_signed(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage_id: &str,
    ) -> Result<SignedStep> {
        let storage = self.storages.get(storage_id)?;
        for _ in 0..MAX_CREATES {
            let new = self.new_signed(caller, file.clone(), &storage)?;
            match self.retry.run(|| self.state.create(&new)).await? {
                Creation::Created => return self.first_step(&storage, &new).await,
                Creation::Exists(found) => {
                    if let Some(step) = self.resume_signed(*found).await? {
                        return Ok(step);
                    }
                }
            }
        }
        Err(Error::fault(
            "create an upload: the one found is gone each time",
        ))
    }

    /// Notes what a client reports, if the upload is OPEN, and returns the record; in any other phase it notes nothing.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a part outside the plan; `FailedPrecondition` for a session in place of one that
    /// has parts, and where the file's size is unknown.
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

    /// [`Gateway::report`], then the signature of the next step; for [`Next::Nothing`] a step `Parts` that tells what is
    /// recorded and claimed.
    ///
    /// # Errors
    /// Those of the report and of the step; `FailedPrecondition` in another phase than OPEN.
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
                let upload = self.report(caller, id, report).await?;
                self.part_step(&upload, part).await
            }
            Next::Finish => {
                self.report(caller, id, report).await?;
                self.sign_finish(caller, id).await
            }
            Next::Nothing => {
                let open = self.report(caller, id, report).await?;
                check_open(&open)?;
                let upload = self.get_upload(caller, id).await?;
                let known = known_parts(&upload);
                self.parts_step(&upload, known).await
            }
        }
    }

    /// Signs one part and notes its MD5 as a claim.
    ///
    /// # Errors
    /// Those of [`Gateway::sign_parts`].
    pub async fn sign_part(
        &self,
        caller: &Caller,
        id: &UploadId,
        part: PartToSign,
    ) -> Result<SignedStep> {
        let upload = self.claim(caller, id, &[part.into()]).await?;
        self.part_step(&upload, part).await
    }

    /// Signs parts, at most [`MAX_SIGNED_PARTS`], and notes their MD5s as claims.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a part outside the plan; `FailedPrecondition` in another phase than OPEN, where
    /// the file's size is unknown, where the store wants a session and has none, and for other bytes of a part that a
    /// stream has sent.
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
        let upload = self.claim(caller, id, &claims).await?;
        let mut steps = Vec::with_capacity(parts.len());
        for &part in parts {
            steps.push(self.part_step(&upload, part).await?);
        }
        Ok(steps)
    }

    /// Signs the commit of all parts, after asking the store for them. Repeatable; the phase stays OPEN.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition`, `Incomplete`, that names the missing parts.
    pub async fn sign_finish(&self, caller: &Caller, id: &UploadId) -> Result<SignedStep> {
        let mut upload = self.get_upload(caller, id).await?;
        check_open(&upload)?;
        let count = part_count(&upload)?;
        let storage = self.storages.get(&upload.storage_id)?;
        check_session(&storage, &upload)?;
        let Some(held) = self.stored_parts(&storage, &upload).await? else {
            return Err(if self.find_committed(&storage, &mut upload).await? {
                wrong_phase(&upload)
            } else {
                session_lost()
            });
        };
        if held.len() < count as usize {
            return Err(incomplete(&upload, &held));
        }
        let parts: Vec<(u32, String)> = held
            .into_values()
            .map(|part| (part.number, part.receipt))
            .collect();
        let commit = ToSign::Commit {
            session: store_session(&upload),
            object: &new_object(&upload, None),
            parts: &parts,
        };
        self.step(&storage, &upload, StepType::Finish, &commit)
            .await
    }

    /// Verifies the object that a client made and marks the upload COMPLETE. Repeatable.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition`, `Incomplete`, that names the missing parts when there is no object yet, and
    /// `PartReplaced` or `DataLoss` when it is not the upload's: then it is deleted and the upload is ABORTED.
    pub async fn complete_upload(&self, caller: &Caller, id: &UploadId) -> Result<Upload> {
        let mut upload = self.get_upload(caller, id).await?;
        match upload.phase {
            Phase::Complete => return Ok(upload),
            Phase::Committing => return self.join_commit(upload).await,
            Phase::Aborted => return Err(wrong_phase(&upload)),
            Phase::Open => {}
        }
        part_count(&upload)?;
        let storage = self.storages.get(&upload.storage_id)?;
        if self.find_committed(&storage, &mut upload).await? {
            return Ok(upload);
        }
        let held = match check_session(&storage, &upload) {
            Ok(()) => self.stored_parts(&storage, &upload).await?,
            Err(_) => None,
        };
        Err(incomplete(&upload, &held.unwrap_or_default()))
    }

    /// The record of a new upload that a client fills itself.
    fn new_signed(
        &self,
        caller: &Caller,
        file: FileMetadata,
        storage: &Arc<Storage>,
    ) -> Result<Upload> {
        let size = file.file_size.ok_or_else(|| {
            let message = "a file that clients send themselves needs its size beforehand";
            Error::invalid("file.file_size", message)
        })?;
        let is_chunked = size > SINGLE_PUT_MAX;
        if let Some(file_id) = file.file_id.as_deref().filter(|_| !is_chunked) {
            let _: Md5 = file_id
                .parse()
                .map_err(|error| Error::invalid("file.file_id", format!("{error}")))?;
        }
        let mut upload = self.new_upload(caller, file, storage, None)?;
        upload.opaque_file_id = is_chunked;
        Ok(upload)
    }

    /// The step that an upload begins with.
    async fn first_step(&self, storage: &Storage, upload: &Upload) -> Result<SignedStep> {
        let object = new_object(upload, upload.promised_md5());
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

    /// The step that the upload found by the same create goes on with; none when it is over and a new one must begin.
    async fn resume_signed(&self, mut upload: Upload) -> Result<Option<SignedStep>> {
        if upload.phase == Phase::Committing {
            return match self.join_commit(upload).await {
                Err(error) if error.is_retryable() => Err(error),
                _ => Ok(None),
            };
        }
        // Signed for where it was begun, whatever storage is the default now.
        let storage = self.storages.get(&upload.storage_id)?;
        if self.is_over(&storage, &mut upload).await? {
            return Ok(None);
        }
        if is_direct(&storage, &upload) || check_session(&storage, &upload).is_err() {
            return self.first_step(&storage, &upload).await.map(Some);
        }
        match self.stored_parts(&storage, &upload).await? {
            Some(held) if held.is_empty() => self.first_step(&storage, &upload).await.map(Some),
            Some(held) => {
                let known = held
                    .values()
                    .map(|part| to_known_part(&storage, &upload, part))
                    .collect();
                self.parts_step(&upload, known).await.map(Some)
            }
            // Looked at again: it may have been committed since.
            None if self.is_over(&storage, &mut upload).await? => Ok(None),
            None => {
                // Whoever still writes into the lost session is kept out of the record.
                let Some(mut upload) = self.fence(&upload).await? else {
                    return Ok(None);
                };
                match self.forget_session(&mut upload).await {
                    Ok(()) => self.first_step(&storage, &upload).await.map(Some),
                    Err(error) if error.reason() == Reason::SessionLost => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Whether a client has made the object, the upload's own or a wrong one.
    async fn is_over(&self, storage: &Storage, upload: &mut Upload) -> Result<bool> {
        match self.find_committed(storage, upload).await {
            Err(error) if error.is_retryable() || upload.is_live() => Err(error),
            Err(_) => Ok(true),
            found => found,
        }
    }

    /// Notes claims; in another phase than OPEN nothing is noted.
    async fn claim(&self, caller: &Caller, id: &UploadId, claims: &[Claim]) -> Result<Upload> {
        let times = self.times();
        let noted = self
            .retry
            .run(|| self.state.claim(id, &caller.owner, claims, times));
        let upload = noted.await?.ok_or_else(|| Error::upload_not_found(id))?;
        if upload.phase == Phase::Open {
            let count = part_count(&upload)?;
            let is_planned = |claim: &Claim| (1..=count).contains(&claim.number);
            if !claims.iter().all(is_planned) {
                let message = format!("the parts of this upload are 1 to {count}");
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
            let message = format!("part {} was sent with other bytes before", part.number);
            return Err(
                Error::precondition(Reason::PrefixMismatch, message).with("part", part.number)
            );
        }
        let span = upload.span(part.number);
        let Span { size, .. } =
            span.ok_or_else(|| Error::fault("sign a part: it is outside the plan"))?;
        let put = ToSign::PutPart {
            session: store_session(upload),
            number: part.number,
            size,
            md5: part.md5,
        };
        self.step(&storage, upload, StepType::PartUpload, &put)
            .await
    }

    async fn parts_step(&self, upload: &Upload, parts: Vec<KnownPart>) -> Result<SignedStep> {
        let storage = self.storages.get(&upload.storage_id)?;
        let list = ToSign::ListParts {
            session: store_session(upload),
        };
        let mut step = match check_session(&storage, upload) {
            Ok(()) => self.step(&storage, upload, StepType::Parts, &list).await?,
            Err(_) => signed_step(upload, StepType::Parts, SignedRequest::default()),
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
        let sign = || storage.store.sign(request, self.clock.now());
        let signed = self.retry.run(sign).await?;
        Ok(signed_step(upload, kind, signed))
    }
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

/// Whether the client is to put the file whole: it is small, and nobody has begun to send parts of it. On S3 nobody can who
/// has not begun a session, whatever was claimed.
fn is_direct(storage: &Storage, upload: &Upload) -> bool {
    let is_small = upload
        .file
        .file_size
        .is_some_and(|size| size <= SINGLE_PUT_MAX);
    let needs_session = storage.store.capabilities().creates_sessions;
    is_small && upload.session.is_none() && (needs_session || upload.claims.is_empty())
}

/// A part that the store has, as a client is told of it. Where the store computes MD5s (S3) a claim that it does not bear
/// out says nothing: the client had better send the part again.
fn to_known_part(storage: &Storage, upload: &Upload, part: &Part) -> KnownPart {
    let claimed = upload.claims.md5(part.number);
    let claimed = claimed.filter(|_| !storage.store.capabilities().lists_part_digests);
    KnownPart {
        md5: part.md5.or(claimed),
        ..KnownPart::from(part)
    }
}

/// What is recorded, and else what is claimed.
fn known_parts(upload: &Upload) -> Vec<KnownPart> {
    let recorded = upload.parts.iter().map(|part| (part.number, part.into()));
    let claimed = upload.claims.iter().filter_map(|claim| {
        let Span { offset, size } = upload.span(claim.number)?;
        let part = KnownPart {
            number: claim.number,
            offset,
            size,
            md5: claim.md5,
        };
        Some((claim.number, part))
    });
    let known: BTreeMap<u32, KnownPart> = claimed.chain(recorded).collect();
    known.into_values().collect()
}

fn part_count(upload: &Upload) -> Result<u32> {
    upload.part_count().ok_or_else(|| {
        Error::precondition(
            Reason::SizeUnknown,
            "the upload was begun without file_size; only a stream can go on with it",
        )
    })
}

fn check_open(upload: &Upload) -> Result<()> {
    if upload.phase == Phase::Open {
        return Ok(());
    }
    Err(wrong_phase(upload))
}

/// S3's requests for parts name a session, which the client begins.
fn check_session(storage: &Storage, upload: &Upload) -> Result<()> {
    if upload.session.is_some() || !storage.store.capabilities().creates_sessions {
        return Ok(());
    }
    Err(Error::precondition(
        Reason::SessionNotStarted,
        "send the signed chunked_upload first, and report the store's UploadId as resumable_id",
    ))
}

fn wrong_phase(upload: &Upload) -> Error {
    let message = format!("the upload is {}", upload.phase);
    Error::precondition(Reason::WrongPhase, message).with("phase", upload.phase)
}

fn session_lost() -> Error {
    Error::precondition(
        Reason::SessionLost,
        "the store no longer knows the session; create again to begin another",
    )
}
