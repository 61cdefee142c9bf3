//! Downloads to a file, in parallel ranges if it is large.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::future::try_join_all;
use tokio::{
    fs,
    io::{AsyncSeekExt, AsyncWriteExt},
    sync::Notify,
    task::spawn_blocking,
};

use super::{DownloadBuilder, Downloaded, check_same, object, partial::Partial, progress, verify};
use crate::{
    client::Client,
    digest::{Digests, Hasher},
    error::ClientError,
    proto::v1::Upload,
    retry::RetryPolicy,
    transfer::{Event, Events, Transfer},
};

/// The size of the ranges in bytes.
const RANGE_SIZE: u64 = 32 * 1024 * 1024;

/// The number of bytes after which a stream records what has arrived. An interruption costs no more of each stream.
const STEP: u64 = 4 * 1024 * 1024;

/// The bytes that are read at once to hash them.
const READ_SIZE: usize = 1024 * 1024;

/// A download to a file that is prepared. See [`Client::download_file`].
#[derive(Debug)]
#[must_use = "a download begins when it is started or awaited"]
pub struct FileDownload {
    client: Client,
    upload_id: String,
    path: PathBuf,
    parallel: usize,
    replace: bool,
    retry: RetryPolicy,
}

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// What all streams of one file share.
#[derive(Debug)]
struct Shared<'a> {
    upload: &'a Upload,
    events: &'a Events,
    missing: Mutex<VecDeque<Range>>,
    partial: Mutex<Partial>,
    /// The bytes that have arrived, also those that are not recorded yet.
    received: Mutex<u64>,
    /// More was recorded.
    recorded: Notify,
}

// === impl Client ===

impl Client {
    /// Prepares a download of the file of a COMPLETE upload to `path`. Until it is whole and its MD5 was compared, it is beside
    /// that place, as `PATH.xxxxxxxx.part`; the same call continues it after an interruption.
    ///
    /// # Errors
    /// The transfer fails with [`ClientError::Refused`] for an error that cannot be retried, [`ClientError::NoProgress`] if no
    /// further byte arrived for [`RetryPolicy::timeout`], [`ClientError::File`] if the file cannot be written, exists, or is
    /// being written by another process, [`ClientError::Changed`] if the record names another object than at the beginning,
    /// [`ClientError::Mismatch`] if the file is not the object.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: upload_gateway_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let downloaded = client.download_file("uploads-…", "film.mp4").parallel(8).await?;
    /// println!("{} bytes, resumed from {}", downloaded.size, downloaded.resumed_from);
    /// # Ok(())
    /// # }
    /// ```
    pub fn download_file(
        &self,
        upload_id: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> FileDownload {
        FileDownload {
            client: self.clone(),
            upload_id: upload_id.into(),
            path: path.into(),
            parallel: 4,
            replace: false,
            retry: RetryPolicy::default(),
        }
    }
}

// === impl FileDownload ===

impl FileDownload {
    /// The number of streams, by default 4. Each reads a range of 32 MiB at a time, so a smaller file needs only one.
    pub fn parallel(mut self, streams: usize) -> Self {
        self.parallel = streams;
        self
    }

    /// Whether an existing file is replaced: by default not.
    pub fn replace(mut self, on: bool) -> Self {
        self.replace = on;
        self
    }

    /// When the download is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Starts the download. It runs while the transfer is polled.
    pub fn start(self) -> Transfer<Downloaded> {
        Transfer::new(|events| async move { self.run(&events).await })
    }

    async fn run(self, events: &Events) -> Result<Downloaded, ClientError> {
        let upload = self.describe(events).await?;
        self.check_place().await?;
        let size = u64::try_from(object(&upload)?.size).unwrap_or_default();
        let opened = Partial::open(&self.path, &self.upload_id, size);
        let mut partial = opened.map_err(|error| failed("write", &self.path, error))?;
        let mut resumed_from = partial.arrived();
        events.report(Event::opened(&upload, resumed_from));
        loop {
            let (filled, digests) = self.fill(&upload, partial, events).await?;
            partial = filled;
            match verify(&upload, digests) {
                Ok(()) => {
                    self.check_place().await?;
                    let finished = partial.finish(&self.path);
                    finished.map_err(|error| failed("write", &self.path, error))?;
                    return Ok(Downloaded {
                        upload,
                        size,
                        md5: digests.md5,
                        crc64nvme: digests.crc64nvme,
                        resumed_from,
                    });
                }
                Err(mismatch) => {
                    let failed = |error| failed("write", &self.path, error);
                    if resumed_from == 0 {
                        // Otherwise the next call would fail, too.
                        partial.remove().map_err(failed)?;
                        return Err(mismatch);
                    }
                    // What earlier calls had left was not of this file.
                    partial.clear().map_err(failed)?;
                    resumed_from = 0;
                    events.report(Event::opened(&upload, 0));
                }
            }
        }
    }

    /// The record of the upload, which has an object.
    async fn describe(&self, events: &Events) -> Result<Upload, ClientError> {
        let (client, id) = (&self.client, &self.upload_id);
        let upload = client.get_with_retries(id, &self.retry, events).await?;
        if upload.object.is_some() {
            return Ok(upload);
        }
        // The gateway says why it has no file.
        let opened = self.range(Range::new(0, 1)).open().await?;
        Ok(opened.upload().clone())
    }

    /// # Errors
    /// `File` if there is a file that is not to be replaced.
    async fn check_place(&self) -> Result<(), ClientError> {
        let exists = fs::try_exists(&self.path).await;
        match exists.map_err(|error| failed("look for", &self.path, error))? {
            true if !self.replace => {
                let exists = ErrorKind::AlreadyExists.into();
                Err(failed("write", &self.path, exists))
            }
            _ => Ok(()),
        }
    }

    /// Downloads what is missing, and returns the digests of the whole file.
    async fn fill(
        &self,
        upload: &Upload,
        mut partial: Partial,
        events: &Events,
    ) -> Result<(Partial, Digests), ClientError> {
        let path = partial.path().to_owned();
        let failed = |error| failed("write", &path, error);
        let streams = partial.missing(RANGE_SIZE).len().min(self.parallel).max(1);
        match streams {
            1 => partial.write_in_order(),
            _ => partial.begin_list(),
        }
        .map_err(failed)?;
        let shared = Shared {
            upload,
            events,
            missing: Mutex::new(partial.missing(RANGE_SIZE).into()),
            received: Mutex::new(partial.arrived()),
            partial: Mutex::new(partial),
            recorded: Notify::new(),
        };
        shared.receive(0);
        let receiving = (0..streams).map(|_| self.receive_ranges(&shared, &path));
        let receiving = try_join_all(receiving);
        let size = u64::try_from(object(upload)?.size).unwrap_or_default();
        let hashing = async { shared.hash(&path, size).await.map_err(failed) };
        let (_, digests) = tokio::try_join!(receiving, hashing)?;
        let partial = shared.partial.into_inner();
        Ok((partial.unwrap_or_else(PoisonError::into_inner), digests))
    }

    /// Downloads one missing range after the other.
    async fn receive_ranges(&self, shared: &Shared<'_>, path: &Path) -> Result<(), ClientError> {
        let failed = |error| failed("write", path, error);
        let opened = fs::OpenOptions::new().write(true).open(path).await;
        let mut file = opened.map_err(failed)?;
        loop {
            let next = lock(&shared.missing).pop_front();
            let Some(range) = next else {
                return Ok(());
            };
            let mut unrecorded = Range::new(range.offset, 0);
            let position = file.seek(SeekFrom::Start(range.offset)).await;
            position.map_err(failed)?;
            let mut download = self.range(range).open_with(shared.events.clone()).await?;
            check_same(shared.upload, download.upload())?;
            while let Some(bytes) = download.next().await? {
                file.write_all(&bytes).await.map_err(failed)?;
                shared.receive(bytes.len() as u64);
                unrecorded.size += bytes.len() as u64;
                if unrecorded.size >= STEP || unrecorded.end() == range.end() {
                    // A write that failed is reported here.
                    file.flush().await.map_err(failed)?;
                    lock(&shared.partial).record(unrecorded).map_err(failed)?;
                    shared.recorded.notify_one();
                    unrecorded = Range::new(unrecorded.end(), 0);
                }
            }
        }
    }

    fn range(&self, range: Range) -> DownloadBuilder {
        let download = self.client.download(&*self.upload_id);
        download
            .offset(range.offset)
            .length(range.size)
            .retry(self.retry.clone())
    }
}

impl IntoFuture for FileDownload {
    type Output = Result<Downloaded, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        self.start().into_future()
    }
}

// === impl Shared ===

impl Shared<'_> {
    /// Reports that `size` more bytes have arrived.
    fn receive(&self, size: u64) {
        let mut received = lock(&self.received);
        *received += size;
        self.events.report(progress(self.upload, *received));
    }

    /// Hashes the file from its beginning, as it grows up to `size` bytes.
    async fn hash(&self, path: &Path, size: u64) -> io::Result<Digests> {
        let object = self.upload.object.clone().unwrap_or_default();
        let (mut hasher, mut hashed) = (Hasher::of_object(&object), 0);
        while hashed < size {
            let front = lock(&self.partial).front();
            if front == hashed {
                self.recorded.notified().await;
                continue;
            }
            let (path, range) = (path.to_owned(), Range::new(hashed, front - hashed));
            let add = move || add_range(hasher, &path, range);
            hasher = spawn_blocking(add).await.map_err(io::Error::other)??;
            hashed = front;
        }
        Ok(hasher.finish())
    }
}

// === impl Range ===

impl Range {
    pub(super) fn new(offset: u64, size: u64) -> Self {
        Self { offset, size }
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.size
    }
}

fn add_range(mut hasher: Hasher, path: &Path, range: Range) -> io::Result<Hasher> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.offset))?;
    let (mut rest, mut bytes) = (file.take(range.size), vec![0; READ_SIZE]);
    loop {
        match rest.read(&mut bytes)? {
            0 if rest.limit() > 0 => return Err(ErrorKind::UnexpectedEof.into()),
            0 => return Ok(hasher),
            count => hasher.update(&bytes[..count]),
        }
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ClientError {
    ClientError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
