//! Downloads through the gateway, which continue by themselves.

use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use tonic::Streaming;

use crate::{
    back_off::BackOff,
    client::Client,
    error::{ClientError, Refusal},
    proto::v1::{
        Chunk, DownloadRequest, DownloadResponse, ErrorReason, Upload, download_response::Message,
    },
    upload::{Event, wire_size},
};

/// How a file is downloaded.
///
/// # Examples
/// ```
/// use upload_gateway_client::DownloadOptions;
///
/// let rest = DownloadOptions { offset: 5_000_000, ..DownloadOptions::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadOptions {
    /// The offset of the first byte.
    pub offset: u64,
    /// Stop retrying when no further byte arrived for this time.
    pub retry_timeout: Duration,
}

/// A download that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Download {
    client: Client,
    upload: Upload,
    position: u64,
    /// `None`: the stream has ended before the file.
    messages: Option<Streaming<DownloadResponse>>,
    back_off: BackOff,
}

// === impl DownloadOptions ===

impl Default for DownloadOptions {
    /// The whole file; a retry timeout of five minutes.
    fn default() -> Self {
        Self {
            offset: 0,
            retry_timeout: Duration::from_secs(300),
        }
    }
}

// === impl Client ===

impl Client {
    /// Begins to read the file of a COMPLETE upload.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error that cannot be retried, [`ClientError::NoProgress`].
    ///
    /// # Examples
    /// ```no_run
    /// use tokio::{fs::File, io::AsyncWriteExt};
    /// use upload_gateway_client::{Client, DownloadOptions};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut file = File::create("report.pdf").await?;
    /// let mut download = client.download("uploads-…", &DownloadOptions::default(), |_| ()).await?;
    /// while let Some(bytes) = download.next(|_| ()).await? {
    ///     file.write_all(&bytes).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn download(
        &self,
        upload_id: &str,
        options: &DownloadOptions,
        mut on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Download, ClientError> {
        let mut back_off = BackOff::new(options.retry_timeout, options.offset);
        loop {
            let failure = match open(self, upload_id, options.offset).await {
                Ok((upload, messages)) => {
                    return Ok(Download {
                        client: self.clone(),
                        upload,
                        position: options.offset,
                        messages: Some(messages),
                        back_off,
                    });
                }
                Err(failure) => failure,
            };
            wait(
                &mut back_off,
                upload_id,
                options.offset,
                failure,
                &mut on_event,
            )
            .await?;
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

    /// The next bytes, whose CRC32C was checked. `None` at the end of the file. If the stream breaks, another one continues.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error that cannot be retried, [`ClientError::NoProgress`] if no further byte arrived for
    /// [`DownloadOptions::retry_timeout`], [`ClientError::Changed`] if the record names another object than at the beginning.
    pub async fn next(
        &mut self,
        mut on_event: impl FnMut(Event<'_>) + Send,
    ) -> Result<Option<Bytes>, ClientError> {
        loop {
            let failure = match self.receive().await {
                Ok(Some(chunk)) if self.is_next(&chunk) => {
                    self.position += chunk.data.len() as u64;
                    return Ok(Some(chunk.data));
                }
                Ok(None) if self.is_whole() => return Ok(None),
                Ok(_) => Refusal::ended_early().into(),
                Err(failure) => failure,
            };
            self.messages = None;
            let id = &self.upload.upload_id;
            wait(
                &mut self.back_off,
                id,
                self.position,
                failure,
                &mut on_event,
            )
            .await?;
        }
    }

    /// The next chunk of the stream, which is opened again if it has ended.
    async fn receive(&mut self) -> Result<Option<Chunk>, ClientError> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            None => {
                let id = &self.upload.upload_id;
                let (upload, messages) = open(&self.client, id, self.position).await?;
                if upload.object != self.upload.object {
                    let upload_id = upload.upload_id;
                    return Err(ClientError::Changed { upload_id });
                }
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
        chunk.offset == wire_size(self.position) && chunk.crc32c.is_none_or(is_whole)
    }

    fn is_whole(&self) -> bool {
        let size = self.upload.object.as_ref().map(|object| object.size);
        size == Some(wire_size(self.position))
    }
}

/// Opens a stream from `offset` on, and reads its first message.
async fn open(
    client: &Client,
    upload_id: &str,
    offset: u64,
) -> Result<(Upload, Streaming<DownloadResponse>), ClientError> {
    let request = DownloadRequest {
        upload_id: upload_id.to_owned(),
        offset: wire_size(offset),
        length: 0,
    };
    let response = client.uploads.clone().download(request).await?;
    let mut messages = response.into_inner();
    match messages.message().await?.map(|first| first.message) {
        Some(Some(Message::Upload(upload))) => Ok((upload, messages)),
        None => Err(Refusal::ended_early().into()),
        Some(_) => Err(ClientError::protocol(
            "a download begins without the record",
        )),
    }
}

/// Waits before the next try.
///
/// # Errors
/// The failure, if another try would fail, too.
async fn wait(
    back_off: &mut BackOff,
    upload_id: &str,
    position: u64,
    failure: ClientError,
    on_event: &mut impl FnMut(Event<'_>),
) -> Result<(), ClientError> {
    // The file has ended before this offset.
    let is_beyond = failure.reason() == Some(ErrorReason::WrongOffset);
    if is_beyond || !failure.is_resumable() {
        return Err(failure);
    }
    let requested = failure.retry_delay();
    let known = (Some(upload_id), position);
    back_off.wait(known, failure, requested, on_event).await
}
