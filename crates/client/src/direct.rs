//! Bytes straight to the store, by requests that the gateway signs: create, parts, finish, complete.
//!
//! A gateway that is away is waited for, and so is the store; each further try at the store has a fresh signature. A
//! session that the store lost is begun anew. Whether the object is there only the gateway says, at the end.

mod file;
mod parts;
mod progress;
mod store;

use std::{fs::File, mem};

use bytes::Bytes;
use tokio::time::sleep;
use tonic::{Response, Status};

use self::{
    file::{LocalFile, Span},
    progress::Progress,
    store::Store,
};
use super::{BackOff, Client, ClientError, Event, UploadOptions, Uploaded, compare, wire_size};
use crate::proto::v1::{
    CompleteUploadRequest, CreateUploadRequest, ErrorReason, FileMetadata, GetUploadRequest,
    SignFinishRequest, Signature, SignedStep, StepType, UpdateUploadRequest, Upload,
};

/// How often a create finds an upload whose parts are gone or belong to another session, before that is an error.
const MAX_STARTS: usize = 3;

/// One direct upload.
#[derive(Debug)]
struct Direct<'a, F> {
    client: &'a Client,
    store: Store,
    file: LocalFile,
    metadata: FileMetadata,
    options: &'a UploadOptions,
    progress: Progress<F>,
}

/// How one request is tried again.
#[derive(Debug)]
struct Tries {
    back_off: BackOff,
    was_forbidden: bool,
}

// === impl Client ===

impl Client {
    /// Sends `file`, a regular one, straight to the store and returns when it lies verified there. `file_size` and
    /// `file_id` of `metadata` are filled in: by them and the name the same call, in another process too, finds the
    /// upload again and sends only the parts that the store lacks. Of a broken upload nothing has to be remembered.
    ///
    /// At most four parts, and unless one is larger 256 MiB, are in memory. Progress has `received_size` alone.
    ///
    /// # Errors
    /// `Refused` for what the gateway will not take, `Store` for what the store will not, `GaveUp` after
    /// [`UploadOptions::retry_timeout`] without anything new in the store, `Source` when the file cannot be read, `Mismatch`
    /// when the object is not the file.
    pub async fn upload_direct(
        &self,
        file: File,
        metadata: FileMetadata,
        options: &UploadOptions,
        on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Uploaded, ClientError> {
        let file = LocalFile::new(file).await?;
        let size = file.span().size;
        let md5 = file.digest(file.span()).await?;
        let direct = Direct {
            client: self,
            store: Store::new()?,
            file,
            metadata: FileMetadata {
                file_size: Some(wire_size(size)),
                file_id: md5.to_string(),
                skip_file_digest: false,
                ..metadata
            },
            options,
            progress: Progress::new(on_event, options.limit_rate),
        };
        let upload = direct.run().await?;
        compare(&upload, size, Some(md5))?;
        let is_proven = upload
            .object
            .as_ref()
            .is_some_and(|object| !object.md5.is_empty());
        Ok(Uploaded {
            size,
            md5: is_proven.then_some(md5),
            resumed_from: direct.progress.resumed_from(size),
            upload,
        })
    }
}

// === impl Direct ===

impl<F: FnMut(Event<'_>) + Send> Direct<'_, F> {
    async fn run(&self) -> Result<Upload, ClientError> {
        let mut tries = self.tries();
        for _ in 1..MAX_STARTS {
            let failure = match self.start().await {
                Err(failure) if is_lost(&failure) => failure,
                done => return done,
            };
            // Somebody with the same file may have finished it, or given it up.
            if let Some(upload_id) = self.progress.upload_id() {
                match self.complete(&upload_id).await {
                    Err(missing)
                        if matches!(
                            missing.reason(),
                            Some(ErrorReason::Incomplete | ErrorReason::UploadNotFound)
                        ) => {}
                    done => return done,
                }
            }
            tries.pause(&self.progress, failure).await?;
        }
        self.start().await
    }

    /// Creates the upload, or finds it again, and brings it to its end.
    async fn start(&self) -> Result<Upload, ClientError> {
        let step = self.create().await?;
        let request = GetUploadRequest {
            upload_id: step.upload_id.clone(),
        };
        let opened = self.ask(request, |mut client, request| async move {
            client.service.get_upload(request).await
        });
        self.progress.opened(&opened.await?);
        match step.r#type() {
            StepType::DirectUpload => return self.make_object(step).await,
            StepType::ChunkedUpload => self.begin_session(step.clone()).await?,
            StepType::Parts => {}
            _ => {
                return Err(ClientError::protocol(
                    "a create answered with no first step",
                ));
            }
        }
        self.send_parts(&step).await?;
        self.progress.committing();
        let finish = self.sign_finish(&step.upload_id).await?;
        self.make_object(finish).await
    }

    /// Begins the store's session, where the store has such, and reports it.
    async fn begin_session(&self, mut step: SignedStep) -> Result<(), ClientError> {
        let mut tries = self.tries();
        let session = loop {
            let signature = step.signature.clone().unwrap_or_default();
            if signature.url.is_empty() {
                return Ok(());
            }
            match self.store.send(&signature, Bytes::new(), |_| ()).await {
                Ok(answer) => break store::element(&answer, "UploadId"),
                Err(refusal) => tries.wait(&self.progress, refusal.into()).await?,
            }
            step = self.sign_again(&step).await?;
        };
        let Some(resumable_id) = session else {
            return Err(ClientError::protocol("the store named no UploadId"));
        };
        let request = UpdateUploadRequest {
            upload_id: step.upload_id,
            resumable_id,
            ..UpdateUploadRequest::default()
        };
        let recorded = self.ask(request, |mut client, request| async move {
            client.signing.update_upload(request).await
        });
        recorded.await?;
        Ok(())
    }

    /// Sends the request that makes the object, until the gateway finds the object in the store.
    async fn make_object(&self, mut step: SignedStep) -> Result<Upload, ClientError> {
        let mut tries = self.tries();
        loop {
            let signature = step.signature.clone().unwrap_or_default();
            let sent = match &step.body {
                Some(body) => self.send_list(&signature, body).await,
                None => self.send(&signature, self.file.span()).await,
            };
            // A request that seemed to fail may have been carried out, and S3's 200 may be none.
            let missing = match self.complete(&step.upload_id).await {
                Err(missing) if missing.reason() == Some(ErrorReason::Incomplete) => missing,
                done => return done,
            };
            tries
                .wait(&self.progress, sent.err().unwrap_or(missing))
                .await?;
            step = self.sign_again(&step).await?;
        }
    }

    /// Sends bytes of the file.
    async fn send(&self, signature: &Signature, span: Span) -> Result<(), ClientError> {
        let bytes = self.file.read(span).await?;
        let mut in_flight = self.progress.in_flight();
        self.store
            .send(signature, bytes, |sent| in_flight.sent(sent))
            .await?;
        in_flight.landed(span.size);
        Ok(())
    }

    /// Sends the list of the parts that the object is to be made of.
    async fn send_list(&self, signature: &Signature, list: &str) -> Result<(), ClientError> {
        let list = Bytes::from(list.to_owned());
        self.store.send(signature, list, |_| ()).await?;
        Ok(())
    }

    async fn create(&self) -> Result<SignedStep, ClientError> {
        let request = CreateUploadRequest {
            file: Some(self.metadata.clone()),
        };
        self.ask(request, |mut client, request| async move {
            client.signing.create_upload(request).await
        })
        .await
    }

    async fn sign_finish(&self, upload_id: &str) -> Result<SignedStep, ClientError> {
        let request = SignFinishRequest {
            upload_id: upload_id.to_owned(),
        };
        self.ask(request, |mut client, request| async move {
            client.signing.sign_finish(request).await
        })
        .await
    }

    async fn complete(&self, upload_id: &str) -> Result<Upload, ClientError> {
        let request = CompleteUploadRequest {
            upload_id: upload_id.to_owned(),
        };
        self.ask(request, |mut client, request| async move {
            client.signing.complete_upload(request).await
        })
        .await
    }

    /// The same step with a fresh signature.
    async fn sign_again(&self, step: &SignedStep) -> Result<SignedStep, ClientError> {
        let fresh = match step.r#type() {
            StepType::Finish => self.sign_finish(&step.upload_id).await?,
            _ => self.create().await?,
        };
        if (fresh.r#type, &fresh.upload_id) == (step.r#type, &step.upload_id) {
            return Ok(fresh);
        }
        Err(ClientError::Changed {
            upload_id: step.upload_id.clone(),
        })
    }

    /// Calls the gateway until it answers.
    async fn ask<Q, A, C>(
        &self,
        request: Q,
        call: impl Fn(Client, Q) -> C,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        C: Future<Output = Result<Response<A>, Status>> + Send,
    {
        let mut tries = self.tries();
        loop {
            match call(self.client.clone(), request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => tries.wait(&self.progress, status.into()).await?,
            }
        }
    }

    fn tries(&self) -> Tries {
        Tries {
            back_off: BackOff {
                committed_size: self.progress.settled(),
                ..BackOff::new(self.options.retry_timeout)
            },
            was_forbidden: false,
        }
    }
}

/// Whether the session, parts of it or the upload itself are gone, so that the same create tells how to go on, if need be
/// from the beginning.
fn is_lost(failure: &ClientError) -> bool {
    let is_lost = matches!(
        failure.reason(),
        Some(
            ErrorReason::SessionLost
                | ErrorReason::SessionNotStarted
                | ErrorReason::SessionInUse
                | ErrorReason::Incomplete
                | ErrorReason::WrongPhase
        )
    );
    is_lost || failure.store_status() == Some(404) || matches!(failure, ClientError::Changed { .. })
}

// === impl Tries ===

impl Tries {
    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure itself where trying again is useless, `GaveUp` when nothing has moved for too long.
    async fn wait(
        &mut self,
        progress: &Progress<impl FnMut(Event<'_>) + Send>,
        failure: ClientError,
    ) -> Result<(), ClientError> {
        // Stores answer so when a signature has expired, too.
        let is_forbidden = failure.store_status() == Some(403);
        let may_have_expired = is_forbidden && !mem::replace(&mut self.was_forbidden, true);
        if may_have_expired || failure.is_resumable() {
            return self.pause(progress, failure).await;
        }
        Err(failure)
    }

    async fn pause(
        &mut self,
        progress: &Progress<impl FnMut(Event<'_>) + Send>,
        failure: ClientError,
    ) -> Result<(), ClientError> {
        let Some(delay) = self
            .back_off
            .next(progress.settled(), failure.retry_delay())
        else {
            return Err(ClientError::GaveUp {
                upload_id: progress.upload_id(),
                retry_timeout: self.back_off.retry_timeout,
                source: Box::new(failure),
            });
        };
        progress.retrying(&failure, delay);
        sleep(delay).await;
        Ok(())
    }
}
