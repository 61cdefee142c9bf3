//! One try: open, send from what is committed, finish.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    ClientError, Event, Known, Refusal, Target, UploadOptions, source::SourceReader, wire_size,
};
use crate::proto::v1::{
    Chunk, Finish, Open, Phase, Upload, UploadProgress, UploadRequest, open,
    upload_request::Message, upload_service_client::UploadServiceClient,
};

/// After so long without bytes an empty chunk tells the gateway that the sender is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Messages that wait for the connection. Few: what waits here is memory, and bytes that may have to be sent again.
const QUEUED_MESSAGES: usize = 2;

/// One try at an upload.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) service: UploadServiceClient<Channel>,
    pub(super) target: &'a Target,
    pub(super) options: &'a UploadOptions,
    /// Do not have the digest of the whole file checked.
    pub(super) lacks_digest: bool,
}

// === impl Attempt ===

impl Attempt<'_> {
    /// Returns the finished upload. What was learnt until a failure is in `known`.
    pub(super) async fn run(
        mut self,
        reader: &mut SourceReader,
        known: &mut Known,
        on_event: &mut (impl FnMut(Event<'_>) + Send),
    ) -> Result<Upload, ClientError> {
        let (messages, queue) = mpsc::channel(QUEUED_MESSAGES);
        send(&messages, Message::Open(self.open(known))).await;
        let resumes = known.upload_id.is_some();
        let call = self
            .service
            .upload_with_progress(ReceiverStream::new(queue));
        let mut answers = call.await?.into_inner();
        let first = answers.message().await?.ok_or_else(Refusal::ended_early)?;
        known.update(&first);
        known.conflict.is_gone();
        let Some(upload) = first.upload else {
            return Err(ClientError::protocol("the first message has no upload"));
        };
        if resumes {
            known.resumed_from = known.committed_size;
        }
        on_event(Event::Opened(&upload));
        match upload.phase() {
            Phase::Open => {}
            Phase::Complete => return Ok(upload),
            _ => return receive(&mut answers, known, on_event, &watch::channel(0).0).await,
        }
        reader.seek(known.committed_size).await?;
        let (committed, committed_size) = watch::channel(known.committed_size);
        let mut sending = pin!(self.send_all(reader, &messages, committed_size, &upload));
        let mut receiving = pin!(receive(&mut answers, known, on_event, &committed));
        tokio::select! {
            biased;
            finished = &mut receiving => return finished,
            sent = &mut sending => sent?,
        }
        receiving.await
    }

    fn open(&self, known: &Known) -> Open {
        let target = match (&known.upload_id, self.target) {
            (Some(id), _) | (None, Target::Upload(id)) => open::Target::UploadId(id.clone()),
            (None, Target::File(file)) => open::Target::File(file.clone()),
        };
        Open {
            target: Some(target),
            resume_token: known.resume_token.clone(),
            takeover: known.conflict.takeover(self.options.takeover).into(),
            ..Open::default()
        }
    }

    /// Sends the rest of the source, then `Finish`.
    async fn send_all(
        &self,
        reader: &mut SourceReader,
        messages: &mpsc::Sender<UploadRequest>,
        mut committed: watch::Receiver<u64>,
        upload: &Upload,
    ) -> Result<(), ClientError> {
        let part_size = u64::try_from(upload.part_size).unwrap_or_default();
        let keeps_digest = !self.lacks_digest
            && upload
                .file
                .as_ref()
                .is_none_or(|file| !file.skip_file_digest);
        let begin = Instant::now();
        let mut sent = 0;
        loop {
            reader.release(*committed.borrow_and_update());
            let next = async {
                if reader.is_full(part_size) {
                    // Everything kept is on its way; a part that is committed makes room.
                    return committed
                        .changed()
                        .await
                        .map(|()| None)
                        .map_err(|_| Refusal::ended_early().into());
                }
                reader.next().await.map(Some)
            };
            let chunk = match timeout(KEEP_ALIVE, next).await {
                Ok(Ok(Some(Some(chunk)))) => chunk,
                Ok(Ok(Some(None))) => break,
                Ok(Ok(None)) => continue,
                Ok(Err(error)) => return Err(error),
                Err(_) => (reader.position(), Bytes::new()),
            };
            let (offset, data) = chunk;
            sent += data.len() as u64;
            let message = Message::Chunk(Chunk {
                offset: wire_size(offset),
                crc32c: Some(crc32c(&data)),
                data,
            });
            if !send(messages, message).await {
                // The stream is over; its last answer says why.
                return Ok(());
            }
            if let Some(rate) = self.options.limit_rate {
                sleep_until(begin + Duration::from_secs_f64(sent as f64 / rate as f64)).await;
            }
        }
        let (size, md5) = reader.finish().await?;
        let finish = Finish {
            file_size: Some(wire_size(size)),
            file_id: md5.filter(|_| keeps_digest).map(|md5| md5.to_string()),
        };
        send(messages, Message::Finish(finish)).await;
        Ok(())
    }
}

/// Reads answers to the last one, the finished upload.
async fn receive(
    answers: &mut Streaming<UploadProgress>,
    known: &mut Known,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
    committed: &watch::Sender<u64>,
) -> Result<Upload, ClientError> {
    loop {
        let progress = answers.message().await?.ok_or_else(Refusal::ended_early)?;
        known.update(&progress);
        committed.send_replace(known.committed_size);
        on_event(Event::Progress(&progress));
        if let Some(upload) = progress.upload
            && upload.phase() == Phase::Complete
        {
            return Ok(upload);
        }
    }
}

/// Whether the stream still takes messages.
async fn send(messages: &mpsc::Sender<UploadRequest>, message: Message) -> bool {
    let request = UploadRequest {
        message: Some(message),
    };
    messages.send(request).await.is_ok()
}

fn crc32c(data: &[u8]) -> u32 {
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data);
    u32::try_from(checksum).expect("a CRC of 32 bits")
}

// === impl Known ===

impl Known {
    fn update(&mut self, progress: &UploadProgress) {
        self.upload_id = Some(progress.upload_id.clone());
        self.committed_size = u64::try_from(progress.committed_size).unwrap_or_default();
        if !progress.resume_token.is_empty() {
            self.resume_token.clone_from(&progress.resume_token);
        }
        if let Some(upload) = &progress.upload
            && !upload.resume_token.is_empty()
        {
            self.resume_token.clone_from(&upload.resume_token);
        }
    }
}
