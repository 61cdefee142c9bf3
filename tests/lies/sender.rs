//! A sender of streams that does what the error table says, and nothing more.

use tonic::Status;
use tonic_types::StatusExt as _;
use upload_gateway_client::proto::v1::{
    FileMetadata, Open, Phase, Upload, UploadProgress, open::Target, upload_request::Message,
};

use crate::{
    common::{Conversation, finish, message},
    failed::Failed,
    world::World,
};

/// The size of a chunk in bytes.
const CHUNK: usize = 1 << 20;

/// A sender, and what it knows of its upload.
#[derive(Debug)]
pub(crate) struct Sender {
    file: FileMetadata,
    data: &'static [u8],
    pub(crate) id: Option<String>,
    /// The newest resume token. Sent only after [`Sender::keep_token`].
    token: String,
    sends_token: bool,
    committed: usize,
}

// === impl Sender ===

impl Sender {
    pub(crate) fn new(file: FileMetadata, data: &'static [u8]) -> Self {
        Self {
            file,
            data,
            id: None,
            token: String::new(),
            sends_token: false,
            committed: 0,
        }
    }

    /// Sends the resume token from now on.
    pub(crate) fn keep_token(&mut self) {
        self.sends_token = true;
    }

    /// Sends all, and resumes until the upload is complete.
    pub(crate) async fn send_all(&mut self, world: &World) -> Result<Upload, Failed> {
        loop {
            match Box::pin(self.attempt(world, None)).await {
                Ok(Some(upload)) => return Ok(upload),
                Ok(None) => world.check_time("the stream ended early")?,
                Err(status) => world.wait_after("UploadWithProgress", &status).await?,
            }
        }
    }

    /// Sends until this much is committed, and disconnects. If the upload is complete, returns it.
    pub(crate) async fn send_until(
        &mut self,
        world: &World,
        size: usize,
    ) -> Result<Option<Upload>, Failed> {
        loop {
            match Box::pin(self.attempt(world, Some(size))).await {
                Ok(ended) => return Ok(ended),
                Err(status) => world.wait_after("UploadWithProgress", &status).await?,
            }
        }
    }

    /// Sends all once.
    pub(crate) async fn try_all(&mut self, world: &World) -> Result<Option<Upload>, Status> {
        Box::pin(self.attempt(world, None)).await
    }

    async fn attempt(
        &mut self,
        world: &World,
        stop: Option<usize>,
    ) -> Result<Option<Upload>, Status> {
        let sent = self.converse(world, stop).await;
        if let Err(status) = &sent
            && let Some(info) = status.get_details_error_info()
            && let Some(id) = info.metadata.get("upload_id")
        {
            self.id.get_or_insert(id.clone());
        }
        sent
    }

    async fn converse(
        &mut self,
        world: &World,
        stop: Option<usize>,
    ) -> Result<Option<Upload>, Status> {
        let client = world.gateway().client().await;
        let mut stream = Conversation::begin_with(client, None).await?;
        stream.send(message(Message::Open(self.open()))).await;
        let first = stream.next().await?;
        self.learn(&first);
        let upload = first.upload.unwrap();
        match upload.phase() {
            Phase::Complete => return Ok(Some(upload)),
            Phase::Open => {}
            _ => return self.follow(stream).await,
        }
        let (from, to) = (self.committed, stop.unwrap_or(self.data.len()));
        if from < to {
            stream
                .send_in_chunks(from, &self.data[from..to], CHUNK)
                .await;
        }
        if stop.is_some() {
            while self.committed < to {
                let progress = stream.next().await?;
                self.learn(&progress);
            }
            return Ok(None);
        }
        stream.send(finish()).await;
        self.follow(stream).await
    }

    /// Waits for the end.
    async fn follow(&mut self, mut stream: Conversation) -> Result<Option<Upload>, Status> {
        stream.close();
        loop {
            let progress = stream.next().await?;
            self.learn(&progress);
            if let Some(upload) = progress.upload
                && upload.phase() == Phase::Complete
            {
                return Ok(Some(upload));
            }
        }
    }

    fn open(&self) -> Open {
        let target = match &self.id {
            Some(id) => Target::UploadId(id.clone()),
            None => Target::File(self.file.clone()),
        };
        let token = self.token.clone();
        Open {
            target: Some(target),
            resume_token: if self.sends_token {
                token
            } else {
                String::new()
            },
            ..Open::default()
        }
    }

    fn learn(&mut self, progress: &UploadProgress) {
        self.id = Some(progress.upload_id.clone());
        self.committed = usize::try_from(progress.committed_size).unwrap();
        let in_upload = progress.upload.as_ref().map(|upload| &upload.resume_token);
        for token in [Some(&progress.resume_token), in_upload]
            .into_iter()
            .flatten()
        {
            if !token.is_empty() {
                self.token.clone_from(token);
            }
        }
    }
}
