//! Direct uploads: the bytes go straight to the store, with requests that the gateway signs.
//!
//! The steps are: create the upload, start the store's session (S3: multipart upload), put the parts, finish, complete.
//! Calls of the gateway and requests to the store are retried; each retry of a request has a fresh signature. If the store
//! lost the session, the upload is created again. Only the gateway decides at the end whether the object is complete.

mod file;
mod job;
mod parts;
mod progress;
mod retries;
mod store;

use std::fs::File;

use bytes::Bytes;

use self::{file::LocalFile, job::Job, parts::Parts, progress::Progress, store::Store};
use crate::{
    builder::{
        Creates, UploadBuilder, Way,
        sealed::{Context, Describes, Run},
    },
    client::Client,
    digest::Digests,
    error::ClientError,
    proto::v1::{
        CompleteUploadRequest, CreateUploadRequest, ErrorReason, FileDigest, FileMetadata,
        GetUploadRequest, SignFinishRequest, SignedStep, StepType, UpdateUploadRequest, Upload,
    },
    resume::Saved,
    upload::{Uploaded, verify, wire_size},
};

/// How often the upload is created if its session or its parts are lost each time.
const MAX_STARTS: usize = 3;

/// A new upload straight to the store. See [`Client::upload_direct`].
#[derive(Debug)]
pub struct DirectUpload {
    metadata: FileMetadata,
    file: File,
}

/// One direct upload.
#[derive(Debug)]
struct Direct {
    job: Job,
    metadata: FileMetadata,
}

impl Way for DirectUpload {}
impl Creates for DirectUpload {}

// === impl Client ===

impl Client {
    /// Prepares an upload of a regular file straight to the store. `file` is its name, or all that the gateway keeps about it;
    /// the client sets `file_size` and `file_id` (the MD5). With these and the name, the same call finds the upload again, in
    /// another process too, and sends only the parts that the store lacks. No upload id has to be kept.
    ///
    /// Memory: at most four parts, and at most 256 MiB unless one part is larger. Progress has only `received_size`.
    ///
    /// # Errors
    /// The transfer fails with [`ClientError::Refused`] and [`ClientError::Store`] for errors that cannot be retried,
    /// [`ClientError::NoProgress`] if nothing more was stored for [`RetryPolicy::timeout`](crate::RetryPolicy::timeout),
    /// [`ClientError::Source`] if the file cannot be read, [`ClientError::FileChanged`] if it changes before all of it is sent,
    /// [`ClientError::Changed`] if another client changes the upload, [`ClientError::Mismatch`] if the object is not the file.
    ///
    /// # Examples
    /// ```no_run
    /// use std::fs::File;
    /// use upload_gateway_client::Client;
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let uploaded = client.upload_direct("film.mp4", File::open("film.mp4")?).await?;
    /// println!("resumed from byte {}", uploaded.resumed_from);
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload_direct(
        &self,
        file: impl Into<FileMetadata>,
        content: File,
    ) -> UploadBuilder<DirectUpload> {
        self.prepare(DirectUpload {
            metadata: file.into(),
            file: content,
        })
    }
}

// === impl DirectUpload ===

impl Run for DirectUpload {
    async fn run(self, context: Context) -> Result<Uploaded, ClientError> {
        let Context {
            client,
            options,
            resume,
            events,
        } = context;
        let file = LocalFile::new(self.file).await?;
        let size = file.span().size;
        let mut saved = match resume {
            Some(resume) => {
                Some(Saved::load(resume, self.metadata.clone(), Some(file.stamp())).await?)
            }
            None => None,
        };
        let mut digests = None;
        if let Some(saved) = &saved {
            if saved.compares_checksums() {
                digests = Some(file.digests(file.span()).await?);
            }
            let found =
                saved.find_complete(&client, digests.map(Digests::from), &options.retry, &events);
            if let Some(uploaded) = found.await? {
                return Ok(uploaded);
            }
            // It is not claimed: the gateway finds the upload of the same file, and several processes may send its parts.
        }
        let (md5, crc64) = match digests {
            Some(digests) => digests,
            None => file.digests(file.span()).await?,
        };
        file.check_unchanged().await?;
        let direct = Direct {
            job: Job {
                client,
                store: Store::new()?,
                file,
                progress: Progress::new(events, options.limit_rate),
                retry: options.retry,
            },
            metadata: FileMetadata {
                file_size: Some(wire_size(size)),
                file_id: md5.to_string(),
                file_digest: FileDigest::Md5.into(),
                ..self.metadata
            },
        };
        let upload = direct.run(saved.as_mut()).await?;
        if let Some(saved) = &saved {
            saved.complete(&upload.upload_id).await;
        }
        let compared = Digests::from((md5, crc64)).known_of(upload.object.as_ref());
        verify(&upload, size, compared)?;
        Ok(Uploaded {
            size,
            md5: compared.md5,
            crc64nvme: compared.crc64nvme,
            resumed_from: direct.job.progress.resumed_from(size),
            was_complete: false,
            upload,
        })
    }
}

impl Describes for DirectUpload {
    fn file(&mut self) -> &mut FileMetadata {
        &mut self.metadata
    }
}

// === impl Direct ===

impl Direct {
    async fn run(&self, mut saved: Option<&mut Saved>) -> Result<Upload, ClientError> {
        let progress = &self.job.progress;
        let mut retries = self.job.retries();
        for _ in 1..MAX_STARTS {
            let failure = match self.start(saved.as_deref_mut()).await {
                Err(failure) if is_lost(&failure) => failure,
                done => return done,
            };
            // Another client with the same file may have completed the upload, or deleted it.
            if let Some(upload_id) = progress.upload_id() {
                match self.complete(&upload_id).await {
                    Err(missing)
                        if matches!(
                            missing.reason(),
                            Some(ErrorReason::Incomplete | ErrorReason::UploadNotFound)
                        ) => {}
                    done => return done,
                }
            }
            retries.wait(progress, failure).await?;
        }
        self.start(saved).await
    }

    /// Creates the upload, or finds it again, and takes it to COMPLETE.
    async fn start(&self, saved: Option<&mut Saved>) -> Result<Upload, ClientError> {
        let step = self.create().await?;
        let request = GetUploadRequest {
            upload_id: step.upload_id.clone(),
        };
        let opened = self.job.call(request, |mut client, request| async move {
            client.uploads.get_upload(request).await
        });
        let opened = opened.await?;
        if let Some(saved) = saved {
            saved.opened(&opened.upload_id, "", opened.phase()).await?;
        }
        self.job.progress.opened(&opened);
        match step.r#type() {
            StepType::DirectUpload => return self.make_object(step).await,
            StepType::ChunkedUpload => self.start_session(step.clone()).await?,
            StepType::Parts => {}
            _ => return Err(ClientError::protocol("not a first step of an upload")),
        }
        Parts::new(&self.job, &step)?.send().await?;
        self.job.file.check_unchanged().await?;
        self.job.progress.committing();
        let finish = self.sign_finish(&step.upload_id).await?;
        self.make_object(finish).await
    }

    /// Starts the store's session and reports its id. Azure has no session to start: then the URL is empty.
    async fn start_session(&self, mut step: SignedStep) -> Result<(), ClientError> {
        let job = &self.job;
        let mut retries = job.retries();
        let session = loop {
            let signature = step.signature.clone().unwrap_or_default();
            if signature.url.is_empty() {
                return Ok(());
            }
            match job.store.send(&signature, Bytes::new(), |_| ()).await {
                Ok(response) => break store::element(&response, "UploadId"),
                Err(refusal) => retries.retry(&job.progress, refusal.into()).await?,
            }
            step = self.sign_again(&step).await?;
        };
        let Some(resumable_id) = session else {
            let problem = "the store's response has no UploadId";
            return Err(ClientError::protocol(problem));
        };
        let request = UpdateUploadRequest {
            upload_id: step.upload_id,
            resumable_id,
            ..UpdateUploadRequest::default()
        };
        let recorded = job.call(request, |mut client, request| async move {
            client.signing.update_upload(request).await
        });
        recorded.await?;
        Ok(())
    }

    /// Sends the request that makes the object, until the gateway finds the object in the store.
    async fn make_object(&self, mut step: SignedStep) -> Result<Upload, ClientError> {
        let job = &self.job;
        let mut retries = job.retries();
        loop {
            let signature = step.signature.clone().unwrap_or_default();
            let sent = match &step.body {
                Some(part_list) => {
                    let part_list = Bytes::from(part_list.clone());
                    let sent = job.store.send(&signature, part_list, |_| ()).await;
                    sent.map(drop).map_err(ClientError::from)
                }
                None => match job.put(&signature, job.file.span()).await {
                    Err(changed @ ClientError::FileChanged { .. }) => return Err(changed),
                    sent => sent,
                },
            };
            // The store may have carried out a request that failed here, and S3 may report a failure after status 200.
            let missing = match self.complete(&step.upload_id).await {
                Err(missing) if missing.reason() == Some(ErrorReason::Incomplete) => missing,
                done => return done,
            };
            let failure = sent.err().unwrap_or(missing);
            retries.retry(&job.progress, failure).await?;
            step = self.sign_again(&step).await?;
        }
    }

    async fn create(&self) -> Result<SignedStep, ClientError> {
        let request = CreateUploadRequest {
            file: Some(self.metadata.clone()),
        };
        let created = self.job.call(request, |mut client, request| async move {
            client.signing.create_upload(request).await
        });
        created.await
    }

    async fn sign_finish(&self, upload_id: &str) -> Result<SignedStep, ClientError> {
        let request = SignFinishRequest {
            upload_id: upload_id.to_owned(),
        };
        let signed = self.job.call(request, |mut client, request| async move {
            client.signing.sign_finish(request).await
        });
        signed.await
    }

    async fn complete(&self, upload_id: &str) -> Result<Upload, ClientError> {
        let request = CompleteUploadRequest {
            upload_id: upload_id.to_owned(),
        };
        let completed = self.job.call(request, |mut client, request| async move {
            client.signing.complete_upload(request).await
        });
        completed.await
    }

    /// The same step with a fresh signature.
    async fn sign_again(&self, step: &SignedStep) -> Result<SignedStep, ClientError> {
        let signed = match step.r#type() {
            StepType::Finish => self.sign_finish(&step.upload_id).await?,
            _ => self.create().await?,
        };
        if (signed.r#type, &signed.upload_id) == (step.r#type, &step.upload_id) {
            return Ok(signed);
        }
        Err(ClientError::Changed {
            upload_id: step.upload_id.clone(),
        })
    }
}

/// Whether the session, some of its parts or the upload itself no longer exists. Then the same create returns the next
/// step, which may be the first one.
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
