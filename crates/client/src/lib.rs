//! A client of the gateway: uploads that survive broken connections and gateways, and the record's other calls.
//!
//! [`Client::upload`] opens the upload, seeks to what is committed, sends, and on a failure does what the error table of
//! `upload.proto` says: resume with back-off, or stop with a typed error. At the end it compares size and digest.
//! [`Client::upload_direct`] sends the bytes straight to the store, by requests that the gateway signs.

mod attempt;
mod digest;
#[cfg(feature = "direct")]
mod direct;
mod error;
pub mod proto;
mod reason;
mod source;
mod writer_conflict;

use std::{fmt, mem, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{
    Streaming,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use self::{attempt::Attempt, source::SourceReader, writer_conflict::WriterConflict};
pub use self::{
    digest::Md5,
    error::{ClientError, Refusal, StoreRefusal},
    source::{ReadSeek, Source},
};
use crate::proto::v1::{
    DeleteUploadRequest, ErrorReason, FileMetadata, GetLimitsRequest, GetUploadRequest, Limits,
    ListUploadsRequest, ListUploadsResponse, SignDownloadRequest, Signature, Takeover, Upload,
    UploadProgress, WatchUploadRequest, signing_service_client::SigningServiceClient,
    upload_service_client::UploadServiceClient,
};

/// The longest wait between two tries.
const MAX_BACK_OFF: Duration = Duration::from_secs(15);

/// The first wait; it doubles from there.
const MIN_BACK_OFF: Duration = Duration::from_millis(100);

/// How often a quiet connection is probed, and how long for the answer is waited.
const PROBE: Duration = Duration::from_secs(20);

/// The largest answer in bytes: a record with 50,000 parts stays well below.
const MAX_ANSWER_SIZE: usize = 16 * 1024 * 1024;

/// Speaks to one gateway; connects when it is first needed, and again whenever the connection is lost.
#[derive(Debug, Clone)]
pub struct Client {
    service: UploadServiceClient<Channel>,
    signing: SigningServiceClient<Channel>,
}

/// What an upload is opened by.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A file to create an upload for.
    File(FileMetadata),
    /// An upload to go on with.
    Upload(String),
}

/// How a file is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadOptions {
    /// The size in bytes of the chunks that are sent. Nothing to a direct upload.
    pub chunk_size: usize,
    /// The most bytes a second. None: as fast as it goes. A direct upload keeps to it from part to part.
    pub limit_rate: Option<u64>,
    /// Compute the MD5 of the whole file, have it checked, and check it. A direct upload always does.
    pub digest: bool,
    /// Give up when nothing more was committed for so long.
    pub retry_timeout: Duration,
    /// What becomes of another sender's stream that is at work on the upload. Where it is left alone, the upload is
    /// refused with `WRITER_ACTIVE`, unless the stream may be this sender's own, of an earlier try: that is waited for.
    /// Nothing to a direct upload.
    pub takeover: Takeover,
}

/// What happens to an upload on its way.
#[derive(Debug)]
pub enum Event<'a> {
    /// The gateway has opened the upload.
    Opened(&'a Upload),
    /// It has come further.
    Progress(&'a UploadProgress),
    /// A try has failed; there will be another one.
    Retrying {
        /// Why it failed.
        cause: &'a ClientError,
        /// When the next one begins.
        delay: Duration,
    },
}

/// A file that lies verified in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Uploaded {
    /// The finished record.
    pub upload: Upload,
    /// The file's size in bytes.
    pub size: u64,
    /// The file's MD5, unless it was not wanted; of a direct upload only where the gateway proved it of the object.
    pub md5: Option<Md5>,
    /// Where in the file the last resume went on, in bytes. 0 where nothing was resumed.
    pub resumed_from: u64,
}

/// What is known of an upload between two tries.
#[derive(Debug, Default)]
struct Known {
    upload_id: Option<String>,
    resume_token: String,
    committed_size: u64,
    resumed_from: u64,
    /// The gateway keeps no digest of the whole file.
    lacks_digest: bool,
    /// Who else may be at work on it.
    conflict: WriterConflict,
}

/// Waits between tries, and when to stop.
#[derive(Debug)]
struct BackOff {
    next: Duration,
    committed_size: u64,
    since: Instant,
    retry_timeout: Duration,
}

// === impl Client ===

impl Client {
    /// A client of the gateway at `server`, `http://127.0.0.1:50051` or `https://…`. Nothing is connected yet.
    ///
    /// # Errors
    /// `InvalidServer` for what is no such URL.
    pub fn connect(server: &str) -> Result<Self, ClientError> {
        let invalid = |error: &dyn fmt::Display| ClientError::InvalidServer {
            server: server.to_owned(),
            problem: error.to_string(),
        };
        let mut endpoint = Endpoint::from_shared(server.to_owned())
            .map_err(|error| invalid(&error))?
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(PROBE)
            .keep_alive_timeout(PROBE);
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                endpoint = endpoint
                    .tls_config(ClientTlsConfig::new().with_enabled_roots())
                    .map_err(|error| invalid(&error))?;
            }
            _ => return Err(invalid(&"must begin with http:// or https://")),
        }
        let channel = endpoint.connect_lazy();
        let service = UploadServiceClient::new(channel.clone());
        let signing = SigningServiceClient::new(channel);
        Ok(Self {
            service: service.max_decoding_message_size(MAX_ANSWER_SIZE),
            signing: signing.max_decoding_message_size(MAX_ANSWER_SIZE),
        })
    }

    /// Sends all of `source` and returns when it lies verified in the store. Resumes by itself.
    ///
    /// # Errors
    /// `Refused` for what the gateway will not take, `GaveUp` after [`UploadOptions::retry_timeout`] without anything new
    /// committed, `Source` when the source cannot be read, `NotRewindable` when it must be read again and cannot,
    /// `Mismatch` when the object is not the file.
    pub async fn upload(
        &self,
        source: Source,
        target: Target,
        options: &UploadOptions,
        mut on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Uploaded, ClientError> {
        let mut reader = SourceReader::new(source, options);
        let mut known = Known::default();
        let mut back_off = BackOff::new(options.retry_timeout);
        if let Target::Upload(id) = &target {
            known.upload_id = Some(id.clone());
        }
        loop {
            let attempt = Attempt {
                service: self.service.clone(),
                target: &target,
                options,
                lacks_digest: known.lacks_digest,
            };
            let failure = match attempt.run(&mut reader, &mut known, &mut on_event).await {
                Ok(upload) => return finish(reader, upload, &known).await,
                Err(failure) => failure,
            };
            // Parts that went straight to the store have broken the chain of the digest, which only finish is told.
            let finishes_without = failure.reason() == Some(ErrorReason::DigestUnknown)
                && !mem::replace(&mut known.lacks_digest, true);
            let failure = known.conflict.classify(failure)?;
            let may_be_own = matches!(
                failure.reason(),
                Some(ErrorReason::TakenOver | ErrorReason::WriterActive)
            );
            if !finishes_without && !may_be_own && !failure.is_resumable() {
                return Err(failure);
            }
            known.learn(&failure);
            if failure.reason() == Some(ErrorReason::TooSlow) && reader.has_paused().await? {
                // That is the source's doing, which may take its time.
                back_off = BackOff::new(options.retry_timeout);
            }
            // Its own stream ends sooner than it would be taken for dead.
            let asked = failure.retry_delay().filter(|_| !may_be_own);
            let Some(delay) = back_off.next(known.committed_size, asked) else {
                return Err(ClientError::GaveUp {
                    upload_id: known.upload_id,
                    retry_timeout: options.retry_timeout,
                    source: Box::new(failure),
                });
            };
            on_event(Event::Retrying {
                cause: &failure,
                delay,
            });
            sleep(delay).await;
        }
    }

    /// Reads an upload's record.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn get(&self, upload_id: &str) -> Result<Upload, ClientError> {
        let upload_id = upload_id.to_owned();
        let mut service = self.service.clone();
        let answer = service.get_upload(GetUploadRequest { upload_id });
        Ok(answer.await?.into_inner())
    }

    /// Lists one page of uploads, newest first.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn list(
        &self,
        request: ListUploadsRequest,
    ) -> Result<ListUploadsResponse, ClientError> {
        Ok(self
            .service
            .clone()
            .list_uploads(request)
            .await?
            .into_inner())
    }

    /// Gives an open upload up.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn delete(&self, upload_id: &str) -> Result<Upload, ClientError> {
        let upload_id = upload_id.to_owned();
        let mut service = self.service.clone();
        let answer = service.delete_upload(DeleteUploadRequest { upload_id });
        Ok(answer.await?.into_inner())
    }

    /// Asks what the gateway takes for a storage; an empty name asks for the default one.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn limits(&self, storage_id: &str) -> Result<Limits, ClientError> {
        let storage_id = storage_id.to_owned();
        let mut service = self.service.clone();
        let answer = service.get_limits(GetLimitsRequest { storage_id });
        Ok(answer.await?.into_inner())
    }

    /// Follows an upload until it is finished.
    ///
    /// # Errors
    /// `Refused`; the stream's items fail like any call.
    pub async fn watch(&self, upload_id: &str) -> Result<Streaming<UploadProgress>, ClientError> {
        let upload_id = upload_id.to_owned();
        let mut service = self.service.clone();
        let answer = service.watch_upload(WatchUploadRequest { upload_id });
        Ok(answer.await?.into_inner())
    }

    /// A request that downloads a finished upload's object, good for `expiry_minutes`, at most 1,440; 0 is the longest.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn sign_download(
        &self,
        upload_id: &str,
        expiry_minutes: i32,
    ) -> Result<Signature, ClientError> {
        let request = SignDownloadRequest {
            upload_id: upload_id.to_owned(),
            expiry_minutes,
        };
        let answer = self.signing.clone().sign_download(request).await?;
        Ok(answer.into_inner().signature.unwrap_or_default())
    }
}

async fn finish(
    mut reader: SourceReader,
    upload: Upload,
    known: &Known,
) -> Result<Uploaded, ClientError> {
    let (size, md5) = reader.finish().await?;
    compare(&upload, size, md5)?;
    Ok(Uploaded {
        size,
        md5,
        resumed_from: known.resumed_from,
        upload,
    })
}

/// Compares the object with the file.
fn compare(upload: &Upload, size: u64, md5: Option<Md5>) -> Result<(), ClientError> {
    let mismatch = |what, expected: String, found: String| ClientError::Mismatch {
        upload_id: upload.upload_id.clone(),
        what,
        expected,
        found,
    };
    let Some(object) = &upload.object else {
        return Err(ClientError::protocol("the finished upload has no object"));
    };
    if u64::try_from(object.size) != Ok(size) {
        return Err(mismatch("size", size.to_string(), object.size.to_string()));
    }
    if let Some(md5) = md5
        && !object.md5.is_empty()
        && object.md5 != md5.to_string()
    {
        return Err(mismatch("MD5", md5.to_string(), object.md5.clone()));
    }
    Ok(())
}

/// A size on the wire; no file comes near the end of an `int64`.
fn wire_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

// === impl UploadOptions ===

impl Default for UploadOptions {
    /// Chunks of 256 KiB, which the gateway prefers; as fast as it goes; with a digest; five minutes of patience; takes
    /// over.
    fn default() -> Self {
        Self {
            chunk_size: 256 * 1024,
            limit_rate: None,
            digest: true,
            retry_timeout: Duration::from_secs(300),
            takeover: Takeover::Force,
        }
    }
}

// === impl Known ===

impl Known {
    /// Errors name the upload once there is one; so a first answer that was lost does not make a second upload. A resume
    /// token that is refused, its key being gone, is not sent again.
    fn learn(&mut self, failure: &ClientError) {
        if failure.reason() == Some(ErrorReason::InvalidToken) {
            self.resume_token.clear();
        }
        if let ClientError::Refused(refusal) = failure
            && self.upload_id.is_none()
        {
            self.upload_id = refusal.metadata.get("upload_id").cloned();
        }
    }
}

// === impl BackOff ===

impl BackOff {
    fn new(retry_timeout: Duration) -> Self {
        Self {
            next: MIN_BACK_OFF,
            committed_size: 0,
            since: Instant::now(),
            retry_timeout,
        }
    }

    /// How long to wait, at least as long as the gateway asks; None when nothing was committed for too long.
    fn next(&mut self, committed_size: u64, asked: Option<Duration>) -> Option<Duration> {
        if committed_size > self.committed_size {
            *self = Self {
                committed_size,
                ..Self::new(self.retry_timeout)
            };
        }
        if self.since.elapsed() >= self.retry_timeout {
            return None;
        }
        // Jitter: senders that lost the same gateway do not all come back at once.
        let jittered = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(MAX_BACK_OFF);
        Some(jittered.max(asked.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_ends_without_progress_and_begins_anew_with_it() {
        let mut back_off = BackOff::new(Duration::from_secs(60));
        for committed_size in [0, 1, 2] {
            sleep(Duration::from_secs(59)).await;
            assert!(back_off.next(committed_size, None).is_some());
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(back_off.next(2, None), None);
    }

    #[tokio::test]
    async fn waits_grow_to_a_bound_and_heed_what_the_gateway_asks() {
        let mut back_off = BackOff::new(Duration::from_secs(60));
        for _ in 0..20 {
            assert!(back_off.next(0, None).unwrap() <= MAX_BACK_OFF);
        }
        assert!(back_off.next(0, None).unwrap() >= MAX_BACK_OFF / 2);
        let asked = Duration::from_secs(40);
        assert_eq!(back_off.next(0, Some(asked)), Some(asked));
    }

    #[test]
    fn a_server_must_be_a_url() {
        for server in ["", "127.0.0.1:50051", "ftp://127.0.0.1", "http://a b"] {
            assert!(Client::connect(server).is_err(), "{server}");
        }
    }
}
