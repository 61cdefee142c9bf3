//! Senders: each knows what it sent, and ends with the finished record or with an error that was reported to it.

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
    time::{Instant, sleep, timeout_at},
};
use upload_gateway_client::{
    Client, ClientError, Event, RetryPolicy, Source, Transfer, UploadBuilder, Uploaded, Way,
    proto::v1::{FileDigest, FileMetadata},
};
use upload_gateway_core::upload::Md5;

use crate::{
    files::{Handled, expire_after, handle},
    uploads::{Course, Upload},
};

/// How long a sender retries without progress of the committed size: the lease of a killed gateway expires after 90 s.
const RETRY_TIMEOUT: Duration = Duration::from_secs(180);

/// How often a sender of signed requests starts again after a wrong answer of the store.
const MAX_REFUSALS: usize = 30;

/// The pause before that.
const PAUSE: Duration = Duration::from_secs(1);

/// The size of a message in bytes: small, so that slow senders make visible progress.
const CHUNK: usize = 64 * 1024;

/// The outcome of one sender.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The gateway reported that the file is stored.
    Stored(Box<Uploaded>),
    /// The gateway, the store or the client library reported an error.
    Failed(ClientError),
    /// It had no answer in time.
    Hung,
}

/// The outcome of one upload.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The upload to be sent.
    pub(crate) upload: Upload,
    /// One for each sender that ended by itself; senders that were stopped on purpose have none.
    pub(crate) outcomes: Vec<Outcome>,
    /// What its senders observed.
    pub(crate) journal: Journal,
    /// What was done with its file after that.
    pub(crate) handled: Option<Handled>,
}

/// What the senders of one upload observed.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Ids under which the upload was opened.
    pub(crate) ids: BTreeSet<String>,
    /// The number of times that it was opened.
    pub(crate) opened: usize,
    /// The reasons for retries, and how often each occurred.
    pub(crate) retries: BTreeMap<String, usize>,
    /// The longest time without an event.
    pub(crate) longest_pause: Duration,
    /// The committed size by line of senders and upload.
    committed: BTreeMap<(usize, String), i64>,
    /// A committed size that became smaller: from, to.
    pub(crate) went_back: Vec<(i64, i64)>,
    /// What was reported to its senders, with the time since the first one began.
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
    /// Senders that follow each other are in one line. Of two concurrent senders, neither knows what the other one was
    /// informed of first.
    line: usize,
    bytes: Bytes,
    journal: Arc<Mutex<Journal>>,
    /// The offset up to which the file was read or sent.
    position: watch::Sender<u64>,
}

/// The file, and the offset up to which it was read.
struct Content {
    bytes: Cursor<Bytes>,
    sender: Sender,
}

/// Sends `upload` until it ends or the deadline is over.
pub(crate) async fn send(front: String, upload: Upload, deadline: Instant) -> Sent {
    let sender = Sender {
        front,
        line: 0,
        bytes: upload.bytes(),
        upload: upload.clone(),
        journal: Arc::default(),
        position: watch::Sender::new(0),
    };
    let ended = timeout_at(deadline, Box::pin(sender.run())).await;
    let outcomes = ended.unwrap_or_else(|_| vec![Outcome::Hung]);
    let journal = std::mem::take(&mut *sender.journal.lock().unwrap());
    let stored = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Stored(uploaded) => Some(&uploaded.upload.upload_id),
        Outcome::Failed(_) | Outcome::Hung => None,
    });
    let handled = match stored {
        Some(id) => Some(Box::pin(handle(&sender.front, &upload, id, deadline)).await),
        None => None,
    };
    Sent {
        upload,
        outcomes,
        journal,
        handled,
    }
}

// === impl Sender ===

impl Sender {
    async fn run(&self) -> Vec<Outcome> {
        match self.upload.course {
            Course::Streamed => vec![self.stream(None).await],
            Course::Signed => vec![self.direct().await],
            Course::Resumed => {
                if let Some(ended) = self.until_the_turn(self.stream(None)).await {
                    return vec![ended];
                }
                let id = self.journal.lock().unwrap().ids.last().cloned();
                vec![self.stream(id).await]
            }
            Course::SignedThenStreamed => match self.until_the_turn(self.direct()).await {
                Some(ended) => vec![ended],
                None => vec![self.stream(None).await],
            },
            Course::StreamedThenSigned => match self.until_the_turn(self.stream(None)).await {
                Some(ended) => vec![ended],
                None => vec![self.direct().await],
            },
            Course::Contested => {
                let first = async {
                    let ended = self.stream(None).await;
                    // The other sender must not wait for a turn that will not come.
                    self.position.send_replace(u64::MAX);
                    ended
                };
                let other = Self {
                    line: 1,
                    ..self.clone()
                };
                let second = async {
                    other.turn().await;
                    other.stream(None).await
                };
                let (first, second) = tokio::join!(first, second);
                vec![first, second]
            }
        }
    }

    /// Runs the sender until the turn and then stops it.
    async fn until_the_turn(&self, sending: impl Future<Output = Outcome>) -> Option<Outcome> {
        tokio::select! {
            biased;
            ended = sending => return Some(ended),
            () = self.turn() => {}
        }
        self.journal
            .lock()
            .unwrap()
            .record("the sender was stopped".into());
        None
    }

    async fn turn(&self) {
        let mut position = self.position.subscribe();
        // The sender itself keeps the channel open.
        let _ = position.wait_for(|at| *at >= self.upload.turn).await;
    }

    /// Streams the file, into the upload with this id or a new one.
    async fn stream(&self, id: Option<String>) -> Outcome {
        let source = Source::seekable(Content {
            bytes: Cursor::new(self.bytes.clone()),
            sender: self.clone(),
        });
        let client = Client::connect(&self.front).unwrap();
        let transfer = match id {
            Some(id) => self.start(client.resume(id, source)),
            None => self.start(client.upload(self.metadata(), source)),
        };
        self.follow(transfer, true).await.into()
    }

    async fn direct(&self) -> Outcome {
        let file = match self.file() {
            Ok(file) => file,
            Err(error) => return Outcome::Failed(error.into()),
        };
        let client = Client::connect(&self.front).unwrap();
        let mut left = MAX_REFUSALS;
        loop {
            let file = match file.try_clone() {
                Ok(file) => file,
                Err(error) => return Outcome::Failed(error.into()),
            };
            let upload = client.upload_direct(self.metadata(), file);
            match self.follow(self.start(upload), false).await {
                // A plain resume, as of a user who gets a wrong answer of the store.
                Err(error) if left > 0 && is_answer_of_store(&error) => {
                    left -= 1;
                    self.journal.lock().unwrap().retry(&error);
                    sleep(PAUSE).await;
                }
                sent => return sent.into(),
            }
        }
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
            file_digest: match digest {
                true => FileDigest::Auto,
                false => FileDigest::None,
            }
            .into(),
            expire_after: expire_after(&self.upload).map(|time| prost_types::Duration {
                seconds: i64::try_from(time.as_secs()).expect("at most some days"),
                nanos: 0,
            }),
            ..FileMetadata::default()
        }
    }

    fn start<W: Way>(&self, upload: UploadBuilder<W>) -> Transfer<Uploaded> {
        let retry = RetryPolicy {
            timeout: RETRY_TIMEOUT,
            ..RetryPolicy::default()
        };
        upload
            .chunk_size(CHUNK)
            .limit_rate(self.upload.rate)
            .digest(self.upload.digest)
            .retry(retry)
            .start()
    }

    async fn follow(
        &self,
        mut transfer: Transfer<Uploaded>,
        shows_committed: bool,
    ) -> Result<Uploaded, ClientError> {
        while let Some(event) = transfer.next().await {
            self.note(&event, shows_committed);
        }
        transfer.finish().await
    }

    fn note(&self, event: &Event, shows_committed: bool) {
        let mut journal = self.journal.lock().unwrap();
        journal.touch();
        match event {
            Event::Opened { upload, .. } => {
                journal.opened += 1;
                journal.record(format!(
                    "opened {} {:?} at {}",
                    upload.upload_id,
                    upload.phase(),
                    upload.committed_size
                ));
                journal.ids.insert(upload.upload_id.clone());
                if shows_committed {
                    journal.commit(self.line, &upload.upload_id, upload.committed_size);
                }
            }
            Event::Progress(progress) => {
                if shows_committed {
                    let committed = i64::try_from(progress.committed_size).expect("a small file");
                    journal.commit(self.line, &progress.upload_id, committed);
                } else {
                    self.position.send_replace(progress.received_size);
                }
            }
            Event::Retrying { cause, .. } => {
                journal.retry(cause);
            }
        }
    }
}

/// Whether a store refused a signed request, or denied to the gateway what it had acknowledged to the sender.
fn is_answer_of_store(error: &ClientError) -> bool {
    matches!(error, ClientError::Store(_)) || reason(error) == "INCOMPLETE"
}

/// Why a call failed, as a short text that is the same each time.
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
    /// Records that an event occurred.
    fn touch(&mut self) {
        let now = Instant::now();
        let times = self.times.get_or_insert(Times {
            begin: now,
            last: now,
        });
        self.longest_pause = self.longest_pause.max(now - times.last);
        times.last = now;
    }

    fn record(&mut self, what: String) {
        self.touch();
        let since = self.times.map(|times| times.last - times.begin);
        self.story.push((since.unwrap_or_default(), what));
    }

    fn retry(&mut self, cause: &ClientError) {
        self.record(format!("{}: {cause}", reason(cause)));
        *self.retries.entry(reason(cause)).or_default() += 1;
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
            Err(error) => Self::Failed(error),
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
