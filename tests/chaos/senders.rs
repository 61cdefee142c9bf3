//! Those who upload: each knows what it sent, and ends with the finished record or with an error it was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Cursor, Seek as _, SeekFrom, Write as _},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncSeek, ReadBuf},
    sync::watch,
    time::{Instant, timeout_at},
};
use upload_gateway_client::{
    Client, ClientError, Event, Source, Target, UploadOptions, Uploaded, proto::v1::FileMetadata,
};
use upload_gateway_core::upload::Md5;

use crate::uploads::{Course, Upload};

/// How long a sender tries without anything new committed: a commit that a killed gateway left behind is free for others
/// after 90 s.
const PATIENCE: Duration = Duration::from_secs(180);

/// The bytes of one message: few, so that slow senders are seen to move.
const CHUNK: usize = 64 * 1024;

/// What became of one sender.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The gateway said that it is stored.
    Stored(Box<Uploaded>),
    /// The gateway, the store or the client library said that it is not.
    Told(ClientError),
    /// It had no answer in time.
    Hung,
}

/// What became of one upload.
#[derive(Debug)]
pub(crate) struct Sent {
    /// What was to be sent.
    pub(crate) upload: Upload,
    /// One for each sender that came to its end; those that died on the way are not among them.
    pub(crate) outcomes: Vec<Outcome>,
    /// What its senders saw.
    pub(crate) journal: Journal,
}

/// What the senders of one upload saw.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Ids under which the upload was opened.
    pub(crate) ids: BTreeSet<String>,
    /// How often it was opened.
    pub(crate) opened: usize,
    /// Why it was tried again, and how often.
    pub(crate) retries: BTreeMap<String, usize>,
    /// The longest time in which nothing happened.
    pub(crate) longest_pause: Duration,
    /// The committed size by line of senders and upload.
    committed: BTreeMap<(usize, String), i64>,
    /// A committed size that became smaller: from, to.
    pub(crate) went_back: Vec<(i64, i64)>,
    /// What its senders were told, and when since the first of them began.
    pub(crate) story: Vec<(Duration, String)>,
    times: Option<Times>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    begin: Instant,
    last: Instant,
}

/// One sender of one upload.
#[derive(Debug, Clone)]
struct Sender {
    front: String,
    upload: Upload,
    /// Those that follow each other are in one line; of two at once, neither knows what the other was told first.
    line: usize,
    bytes: Bytes,
    journal: Arc<Mutex<Journal>>,
    /// How far the file was read or sent.
    position: watch::Sender<u64>,
}

/// The file, and how far it was read.
struct Content {
    bytes: Cursor<Bytes>,
    sender: Sender,
}

/// Sends `upload`, to its end or the deadline.
pub(crate) async fn send(front: String, upload: Upload, deadline: Instant) -> Sent {
    let sender = Sender {
        front,
        line: 0,
        bytes: upload.bytes(),
        upload: upload.clone(),
        journal: Arc::default(),
        position: watch::Sender::new(0),
    };
    let ended = timeout_at(deadline, sender.run()).await;
    let outcomes = ended.unwrap_or_else(|_| vec![Outcome::Hung]);
    let journal = std::mem::take(&mut *sender.journal.lock().unwrap());
    Sent {
        upload,
        outcomes,
        journal,
    }
}

// === impl Sender ===

impl Sender {
    async fn run(&self) -> Vec<Outcome> {
        let by_file = || Target::File(self.metadata());
        match self.upload.course {
            Course::Streamed => vec![self.stream(by_file()).await],
            Course::Signed => vec![self.direct().await],
            Course::Resumed => {
                if let Some(ended) = self.until_the_turn(self.stream(by_file())).await {
                    return vec![ended];
                }
                let id = self.journal.lock().unwrap().ids.last().cloned();
                vec![self.stream(id.map_or_else(by_file, Target::Upload)).await]
            }
            Course::SignedThenStreamed => match self.until_the_turn(self.direct()).await {
                Some(ended) => vec![ended],
                None => vec![self.stream(by_file()).await],
            },
            Course::StreamedThenSigned => match self.until_the_turn(self.stream(by_file())).await {
                Some(ended) => vec![ended],
                None => vec![self.direct().await],
            },
            Course::Contested => {
                let first = async {
                    let ended = self.stream(by_file()).await;
                    // The other one need not wait for a turn that does not come.
                    self.position.send_replace(u64::MAX);
                    ended
                };
                let other = Self {
                    line: 1,
                    ..self.clone()
                };
                let second = async {
                    other.turn().await;
                    other.stream(by_file()).await
                };
                let (first, second) = tokio::join!(first, second);
                vec![first, second]
            }
        }
    }

    /// The sender dies at the turn.
    async fn until_the_turn(&self, sending: impl Future<Output = Outcome>) -> Option<Outcome> {
        tokio::select! {
            biased;
            ended = sending => return Some(ended),
            () = self.turn() => {}
        }
        self.journal.lock().unwrap().tell("the sender died".into());
        None
    }

    async fn turn(&self) {
        let mut position = self.position.subscribe();
        // The sender itself keeps it open.
        let _ = position.wait_for(|at| *at >= self.upload.turn).await;
    }

    async fn stream(&self, target: Target) -> Outcome {
        let source = Source::seekable(Content {
            bytes: Cursor::new(self.bytes.clone()),
            sender: self.clone(),
        });
        let client = Client::connect(&self.front).unwrap();
        let options = self.options();
        let sent = client.upload(source, target, &options, |event| self.note(&event, true));
        sent.await.into()
    }

    async fn direct(&self) -> Outcome {
        let file = match self.file() {
            Ok(file) => file,
            Err(error) => return Outcome::Told(error.into()),
        };
        let client = Client::connect(&self.front).unwrap();
        let options = self.options();
        let sent = client.upload_direct(file, self.metadata(), &options, |event| {
            self.note(&event, false);
        });
        Box::pin(sent).await.into()
    }

    fn file(&self) -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&self.bytes)?;
        file.rewind()?;
        Ok(file)
    }

    fn metadata(&self) -> FileMetadata {
        let size = i64::try_from(self.upload.size).expect("a small file");
        let (declared, digest) = (self.upload.declared, self.upload.digest);
        FileMetadata {
            file_name: self.upload.name(),
            file_size: declared.then_some(size),
            file_id: match declared && digest {
                true => Md5::of(&self.bytes).to_string(),
                false => String::new(),
            },
            storage_id: self.upload.store.id().into(),
            skip_file_digest: !digest,
            ..FileMetadata::default()
        }
    }

    fn options(&self) -> UploadOptions {
        UploadOptions {
            chunk_size: CHUNK,
            limit_rate: Some(self.upload.rate),
            digest: self.upload.digest,
            retry_timeout: PATIENCE,
            ..UploadOptions::default()
        }
    }

    fn note(&self, event: &Event<'_>, tells_committed: bool) {
        let mut journal = self.journal.lock().unwrap();
        journal.touch();
        match event {
            Event::Opened(upload) => {
                journal.opened += 1;
                journal.tell(format!(
                    "opened {} {:?} at {}",
                    upload.upload_id,
                    upload.phase(),
                    upload.committed_size
                ));
                journal.ids.insert(upload.upload_id.clone());
                if tells_committed {
                    journal.commit(self.line, &upload.upload_id, upload.committed_size);
                }
            }
            Event::Progress(progress) => {
                if tells_committed {
                    journal.commit(self.line, &progress.upload_id, progress.committed_size);
                } else {
                    let sent = u64::try_from(progress.received_size).unwrap_or_default();
                    self.position.send_replace(sent);
                }
            }
            Event::Retrying { cause, .. } => {
                journal.tell(format!("{}: {cause}", reason(cause)));
                *journal.retries.entry(reason(cause)).or_default() += 1;
            }
        }
    }
}

/// Why a call failed, in few words that are the same each time.
pub(crate) fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Refused(refusal) if refusal.reason_name.is_empty() => {
            format!("connection: {:?}", refusal.code)
        }
        ClientError::Refused(refusal) => refusal.reason_name.clone(),
        ClientError::Store(refusal) => match refusal.status {
            Some(status) => format!("store: {status} {}", refusal.code),
            None => "store: connection".into(),
        },
        ClientError::NoProgress { source, .. } => format!("no progress: {}", reason(source)),
        other => other.to_string(),
    }
}

// === impl Journal ===

impl Journal {
    /// Something happened.
    fn touch(&mut self) {
        let now = Instant::now();
        let times = self.times.get_or_insert(Times {
            begin: now,
            last: now,
        });
        self.longest_pause = self.longest_pause.max(now - times.last);
        times.last = now;
    }

    fn tell(&mut self, what: String) {
        self.touch();
        let since = self.times.map(|times| times.last - times.begin);
        self.story.push((since.unwrap_or_default(), what));
    }

    fn commit(&mut self, line: usize, id: &str, size: i64) {
        if let Some(before) = self.committed.insert((line, id.to_owned()), size)
            && size < before
        {
            self.went_back.push((before, size));
        }
    }
}

// === impl Outcome ===

impl From<Result<Uploaded, ClientError>> for Outcome {
    fn from(result: Result<Uploaded, ClientError>) -> Self {
        match result {
            Ok(uploaded) => Self::Stored(Box::new(uploaded)),
            Err(error) => Self::Told(error),
        }
    }
}

// === impl Content ===

impl AsyncRead for Content {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.bytes).poll_read(context, buffer);
        self.sender.journal.lock().unwrap().touch();
        self.sender.position.send_replace(self.bytes.position());
        read
    }
}

impl AsyncSeek for Content {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.bytes).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.bytes).poll_complete(context)
    }
}
