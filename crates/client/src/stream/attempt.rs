//! One try: open, send from the committed size, finish.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{known::Known, source::SourceReader};
use crate::{
    error::{ClientError, Refusal},
    options::Transport,
    proto::v1::{
        Chunk, FileDigest, FileMetadata, Finish, Phase, Upload, UploadProgress, UploadRequest,
        upload_request::Message, upload_service_client::UploadServiceClient,
    },
    transfer::{Event, Events},
    upload::{UploadOptions, wire_size},
};

/// If the source has no bytes for this long, an empty chunk keeps the stream alive: a quarter of the gateway's default
/// `idle_timeout_seconds`.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Messages that wait for the connection. Few, because they use memory and may have to be sent again.
const QUEUED_MESSAGES: usize = 2;

/// One try of an upload.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) uploads: UploadServiceClient<Transport>,
    pub(super) options: &'a UploadOptions,
    pub(super) events: &'a Events,
}

// === impl Attempt ===

impl Attempt<'_> {
    /// Returns the complete upload. `known` is kept up to date, also if the try fails.
    pub(super) async fn run(
        mut self,
        reader: &mut SourceReader,
        known: &mut Known,
    ) -> Result<Upload, ClientError> {
        if let Some(unchecked) = &mut known.unchecked {
            unchecked.check(&mut self.uploads, reader).await?;
            known.unchecked = None;
        }
        let resumes = known.upload_id().is_some();
        let (messages, mut responses) = match self.open(known).await {
            // The connection had got GOAWAY: hyper notices it at the next call, which it does not send. The one after that
            // uses a new connection.
            Err(status) if was_not_sent(&status) => self.open(known).await?,
            opened => opened?,
        };
        let first = responses
            .message()
            .await?
            .ok_or_else(Refusal::ended_early)?;
        known.update(&first);
        known.conflict.clear();
        let Some(upload) = first.upload else {
            return Err(ClientError::protocol("the first message has no upload"));
        };
        if resumes {
            known.resumed_from = known.committed_size;
        }
        known.save_opened(upload.phase()).await?;
        let offset = if resumes { known.committed_size } else { 0 };
        self.events.report(Event::opened(&upload, offset));
        match upload.phase() {
            Phase::Open => {}
            Phase::Complete => return Ok(upload),
            _ => return receive(&mut responses, known, self.events, &watch::channel(0).0).await,
        }
        let file = upload.file.as_ref();
        reader.keep_digest(file.map_or(FileDigest::Unspecified, FileMetadata::file_digest));
        reader.seek(known.committed_size).await?;
        let sends_digest = !known.lacks_digest;
        let (committed, committed_size) = watch::channel(known.committed_size);
        let part_size = u64::try_from(upload.part_size).unwrap_or_default();
        let events = self.events;
        let mut sending = pin!(async move {
            // Dropped after the last message, which closes this side of the stream.
            let messages = messages;
            let chunks = self.send_chunks(reader, &messages, committed_size, part_size);
            match chunks.await? {
                true => send_finish(reader, &messages, sends_digest).await,
                false => Ok(()),
            }
        });
        let mut receiving = pin!(receive(&mut responses, known, events, &committed));
        tokio::select! {
            biased;
            finished = &mut receiving => return finished,
            sent = &mut sending => sent?,
        }
        receiving.await
    }

    /// Begins the call and sends its first message.
    async fn open(
        &mut self,
        known: &Known,
    ) -> Result<(mpsc::Sender<UploadRequest>, Streaming<UploadProgress>), Status> {
        let (messages, queue) = mpsc::channel(QUEUED_MESSAGES);
        send(&messages, Message::Open(known.open(self.options))).await;
        let call = self
            .uploads
            .upload_with_progress(ReceiverStream::new(queue));
        Ok((messages, call.await?.into_inner()))
    }

    /// Sends the rest of the source. False: the stream has ended, and its responses have the error.
    async fn send_chunks(
        &self,
        reader: &mut SourceReader,
        messages: &mpsc::Sender<UploadRequest>,
        mut committed: watch::Receiver<u64>,
        part_size: u64,
    ) -> Result<bool, ClientError> {
        let begin = Instant::now();
        let mut sent = 0;
        loop {
            reader.release(*committed.borrow_and_update());
            let next = async {
                if reader.is_full(part_size) {
                    // The next committed part makes room.
                    return committed
                        .changed()
                        .await
                        .map(|()| None)
                        .map_err(|_| Refusal::ended_early().into());
                }
                reader.next().await.map(Some)
            };
            let (offset, data) = match timeout(KEEP_ALIVE, next).await {
                Ok(Ok(Some(Some(chunk)))) => chunk,
                Ok(Ok(Some(None))) => return Ok(true),
                Ok(Ok(None)) => continue,
                Ok(Err(error)) => return Err(error),
                Err(_) => (reader.position(), Bytes::new()),
            };
            sent += data.len() as u64;
            let message = Message::Chunk(Chunk {
                offset: wire_size(offset),
                crc32c: Some(crc32c(&data)),
                data,
            });
            if !send(messages, message).await {
                return Ok(false);
            }
            if let Some(rate) = self.options.limit_rate {
                sleep_until(begin + Duration::from_secs_f64(sent as f64 / rate as f64)).await;
            }
        }
    }
}

/// Whether the connection was closed before the call was sent. Every error of a gateway has details.
fn was_not_sent(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.details().is_empty()
}

async fn send_finish(
    reader: &mut SourceReader,
    messages: &mpsc::Sender<UploadRequest>,
    sends_digest: bool,
) -> Result<(), ClientError> {
    let (size, digests) = reader.finish().await?;
    let digests = Some(digests).filter(|_| sends_digest).unwrap_or_default();
    let finish = Finish {
        file_size: Some(wire_size(size)),
        file_id: digests.md5.map(|md5| md5.to_string()),
        crc64nvme: digests.crc64nvme.map(|crc64| crc64.0),
    };
    send(messages, Message::Finish(finish)).await;
    Ok(())
}

/// Receives messages up to the last one, which has the complete upload.
async fn receive(
    responses: &mut Streaming<UploadProgress>,
    known: &mut Known,
    events: &Events,
    committed: &watch::Sender<u64>,
) -> Result<Upload, ClientError> {
    loop {
        let progress = responses
            .message()
            .await?
            .ok_or_else(Refusal::ended_early)?;
        known.update(&progress);
        committed.send_replace(known.committed_size);
        known.save_token().await;
        events.report(Event::Progress((&progress).into()));
        if let Some(upload) = progress.upload
            && upload.phase() == Phase::Complete
        {
            return Ok(upload);
        }
    }
}

/// False: the stream has ended.
async fn send(messages: &mpsc::Sender<UploadRequest>, message: Message) -> bool {
    let request = UploadRequest {
        message: Some(message),
    };
    messages.send(request).await.is_ok()
}

fn crc32c(data: &[u8]) -> u32 {
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data);
    u32::try_from(checksum).expect("a CRC32C has 32 bits")
}
