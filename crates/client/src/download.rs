//! Downloads through the gateway, which continue by themselves.

mod file;
mod partial;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::Streaming;

pub use self::file::FileDownload;
use crate::{
    client::Client,
    digest::{Crc64Nvme, Digests, Hasher, Md5},
    error::{ClientError, Refusal},
    proto::v1::{
        Chunk, DownloadRequest, DownloadResponse, ErrorReason, Object, Phase, Upload,
        download_response::Message,
    },
    retry::{BackOff, RetryPolicy},
    transfer::{Event, Events, Progress, Transfer},
    upload::wire_size,
};

/// A download that is prepared.
///
/// # Examples
/// ```no_run
/// use upload_gateway_client::Client;
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut download = client.download("uploads-…").offset(5_000_000).length(1_000).open().await?;
/// while let Some(bytes) = download.next().await? {
///     println!("{} bytes", bytes.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a download begins when it is opened or written"]
pub struct DownloadBuilder {
    client: Client,
    upload_id: String,
    offset: u64,
    length: Option<u64>,
    retry: RetryPolicy,
}

/// A download that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Download {
    request: DownloadBuilder,
    upload: Upload,
    position: u64,
    /// Where the download ends.
    end: u64,
    /// `None`: the stream has ended before the file.
    messages: Option<Streaming<DownloadResponse>>,
    back_off: BackOff,
    events: Events,
}

/// A file that was downloaded.
///
/// # Examples
/// ```
/// use upload_gateway_client::Downloaded;
///
/// fn print(downloaded: &Downloaded) {
///     println!("{}: {} bytes", downloaded.upload.upload_id, downloaded.size);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Downloaded {
    /// The record of the upload.
    pub upload: Upload,
    /// The bytes that were written, those of earlier calls included.
    pub size: u64,
    /// The MD5 of the whole file, compared with that of the object, if the gateway knows it. `None` for a range, and if the gateway
    /// knows only the `crc64nvme`.
    pub md5: Option<Md5>,
    /// The CRC-64/NVME of the whole file, compared with that of the object, if the gateway knows no MD5.
    pub crc64nvme: Option<Crc64Nvme>,
    /// The bytes that earlier calls had written.
    pub resumed_from: u64,
}

// === impl Client ===

impl Client {
    /// Prepares a download of the file of a COMPLETE upload. See also [`Client::download_file`].
    pub fn download(&self, upload_id: impl Into<String>) -> DownloadBuilder {
        DownloadBuilder {
            client: self.clone(),
            upload_id: upload_id.into(),
            offset: 0,
            length: None,
            retry: RetryPolicy::default(),
        }
    }
}

// === impl DownloadBuilder ===

impl DownloadBuilder {
    /// The offset of the first byte. By default 0.
    pub fn offset(mut self, bytes: u64) -> Self {
        self.offset = bytes;
        self
    }

    /// The number of bytes. By default all up to the end of the file.
    pub fn length(mut self, bytes: u64) -> Self {
        self.length = Some(bytes);
        self
    }

    /// When the download is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Begins to read.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error that cannot be retried, [`ClientError::NoProgress`].
    pub async fn open(self) -> Result<Download, ClientError> {
        self.open_with(Events::default()).await
    }

    /// Writes all bytes to `output`, and compares the MD5 of a whole file with that of the record.
    ///
    /// # Errors
    /// The transfer fails with the errors of [`Download::next`], with [`ClientError::Output`] if `output` fails, and with
    /// [`ClientError::Mismatch`] if the file is not the object. Then its bytes are already written.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: upload_gateway_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.download("uploads-…").write_to(tokio::io::stdout()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_to(
        self,
        mut output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Transfer<Downloaded> {
        Transfer::new(|events| async move {
            let is_whole = self.offset == 0 && self.length.is_none();
            let mut download = self.open_with(events.clone()).await?;
            events.report(Event::opened(&download.upload, download.position));
            let begin = download.position;
            let mut hasher = Hasher::of_object(object(&download.upload)?);
            while let Some(bytes) = download.next().await? {
                let written = output.write_all(&bytes).await;
                written.map_err(ClientError::Output)?;
                hasher.update(&bytes);
                let size = download.position - begin;
                events.report(progress(&download.upload, size));
            }
            output.flush().await.map_err(ClientError::Output)?;
            let whole = is_whole.then(|| hasher.finish());
            let digests = whole.unwrap_or_default();
            verify(&download.upload, digests)?;
            Ok(Downloaded {
                size: download.position - begin,
                upload: download.upload,
                md5: digests.md5,
                crc64nvme: digests.crc64nvme,
                resumed_from: 0,
            })
        })
    }

    async fn open_with(self, events: Events) -> Result<Download, ClientError> {
        let mut back_off = BackOff::new(self.retry.clone(), self.offset);
        loop {
            let failure = match self.open_stream(self.offset).await {
                Ok((upload, messages)) => {
                    let size = u64::try_from(object(&upload)?.size).unwrap_or_default();
                    let length = self.length.unwrap_or(u64::MAX);
                    return Ok(Download {
                        position: self.offset,
                        end: self.offset.saturating_add(length).min(size),
                        messages: Some(messages),
                        request: self,
                        upload,
                        back_off,
                        events,
                    });
                }
                Err(failure) => failure,
            };
            let known = (&*self.upload_id, self.offset);
            wait(&mut back_off, known, failure, &events).await?;
        }
    }

    /// Opens a stream from `position` on, and reads its first message.
    async fn open_stream(
        &self,
        position: u64,
    ) -> Result<(Upload, Streaming<DownloadResponse>), ClientError> {
        let end = self.length.map(|length| self.offset.saturating_add(length));
        let request = DownloadRequest {
            upload_id: self.upload_id.clone(),
            offset: wire_size(position),
            length: end.map_or(0, |end| wire_size(end - position)),
        };
        let response = self.client.uploads.clone().download(request).await?;
        let mut messages = response.into_inner();
        match messages.message().await?.map(|first| first.message) {
            Some(Some(Message::Upload(upload))) => Ok((upload, messages)),
            None => Err(Refusal::ended_early().into()),
            Some(_) => Err(ClientError::protocol(
                "a download begins without the record",
            )),
        }
    }
}

// === impl Download ===

impl Download {
    /// The record of the upload.
    pub fn upload(&self) -> &Upload {
        &self.upload
    }

    /// The offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, whose CRC32C was checked. `None` at the end. If the stream breaks, another one continues.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error that cannot be retried, [`ClientError::NoProgress`] if no further byte arrived for
    /// [`RetryPolicy::timeout`], [`ClientError::Changed`] if the record names another object than at the beginning.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let failure = match self.receive().await {
                Ok(Some(chunk)) if self.is_next(&chunk) => {
                    self.position += chunk.data.len() as u64;
                    return Ok(Some(chunk.data));
                }
                Ok(None) if self.position == self.end => return Ok(None),
                Ok(_) => Refusal::ended_early().into(),
                Err(failure) => failure,
            };
            self.messages = None;
            let known = (&*self.request.upload_id, self.position);
            wait(&mut self.back_off, known, failure, &self.events).await?;
        }
    }

    /// The next chunk of the stream, which is opened again if it has ended.
    async fn receive(&mut self) -> Result<Option<Chunk>, ClientError> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            // A request of length 0 is one for the whole rest.
            None if self.position == self.end => return Ok(None),
            None => {
                let (upload, messages) = self.request.open_stream(self.position).await?;
                check_same(&self.upload, &upload)?;
                self.messages.insert(messages)
            }
        };
        match messages.message().await?.map(|next| next.message) {
            None => Ok(None),
            Some(Some(Message::Chunk(chunk))) => Ok(Some(chunk)),
            Some(_) => Err(ClientError::protocol(
                "a message of a download has no chunk",
            )),
        }
    }

    /// Whether a chunk has the next bytes, undamaged.
    fn is_next(&self, chunk: &Chunk) -> bool {
        let found = || checksum(CrcAlgorithm::Crc32Iscsi, &chunk.data);
        let is_whole = |crc32c| found() == u64::from(crc32c);
        let size = chunk.data.len() as u64;
        chunk.offset == wire_size(self.position)
            && size <= self.end - self.position
            && chunk.crc32c.is_none_or(is_whole)
    }
}

/// The object of a record.
///
/// # Errors
/// `Protocol` if it has none.
fn object(upload: &Upload) -> Result<&Object, ClientError> {
    let object = upload.object.as_ref();
    object.ok_or_else(|| ClientError::protocol("the complete upload has no object"))
}

/// Checks that two records name the same object.
///
/// # Errors
/// `Changed`.
fn check_same(before: &Upload, now: &Upload) -> Result<(), ClientError> {
    if before.object == now.object {
        return Ok(());
    }
    Err(ClientError::Changed {
        upload_id: now.upload_id.clone(),
    })
}

/// Compares the digests of what arrived with those of the object, if the gateway knows them.
///
/// # Errors
/// `Mismatch`.
fn verify(upload: &Upload, arrived: Digests) -> Result<(), ClientError> {
    let size = u64::try_from(object(upload)?.size).unwrap_or_default();
    crate::upload::verify(upload, size, arrived)
}

fn progress(upload: &Upload, received_size: u64) -> Event {
    Event::Progress(Progress {
        upload_id: upload.upload_id.clone(),
        committed_size: 0,
        received_size,
        phase: Phase::Complete,
    })
}

/// Waits before the next try.
///
/// # Errors
/// The failure, if another try would fail, too.
async fn wait(
    back_off: &mut BackOff,
    (upload_id, position): (&str, u64),
    failure: ClientError,
    events: &Events,
) -> Result<(), ClientError> {
    // The file has ended before this offset.
    let is_beyond = failure.reason() == Some(ErrorReason::WrongOffset);
    if is_beyond || !failure.is_resumable() {
        return Err(failure);
    }
    let requested = failure.retry_delay();
    let known = (Some(upload_id), position);
    back_off.wait(known, failure, requested, events).await
}
