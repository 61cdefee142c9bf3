//! The calls that upload a file, and what is set before they start.

use std::{borrow::Cow, pin::Pin, sync::Arc, time::Duration};

use crate::{
    client::Client,
    error::ClientError,
    proto::v1::{FileMetadata, Placement, Takeover},
    resume::{Check, Resume, ResumeStore},
    retry::RetryPolicy,
    stream::{self, Source, Target},
    transfer::{Events, Transfer},
    upload::{UploadOptions, Uploaded, wire_size},
};
use sealed::Context;

/// An upload that is prepared. [`UploadBuilder::start`] starts it; `await` starts it and waits for its end.
///
/// `W` is the way: [`NewUpload`], [`KnownUpload`] or `DirectUpload`.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use upload_gateway_client::{Client, RetryPolicy, Source};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let uploaded = client
///     .upload("report.pdf", Source::open("report.pdf").await?)
///     .mime("application/pdf")
///     .tag("2026")
///     .metadata("department", "sales")
///     .expire_after(Duration::from_secs(30 * 24 * 3600))
///     .limit_rate(10 * 1024 * 1024)
///     .retry(RetryPolicy { timeout: Duration::from_secs(3600), ..RetryPolicy::default() })
///     .await?;
/// println!("{} bytes", uploaded.size);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an upload begins when it is started or awaited"]
pub struct UploadBuilder<W> {
    client: Client,
    options: UploadOptions,
    resume: Option<Resume>,
    way: W,
}

/// A new upload through the gateway. See [`Client::upload`].
#[derive(Debug)]
pub struct NewUpload {
    file: FileMetadata,
    source: Source,
}

/// An upload through the gateway that was begun earlier. See [`Client::resume`].
#[derive(Debug)]
pub struct KnownUpload {
    upload_id: String,
    source: Source,
}

/// A way to upload. Implemented by [`NewUpload`], [`KnownUpload`] and `DirectUpload`.
pub trait Way: sealed::Run {}

/// A way that creates an upload, and so describes the file.
pub trait Creates: Way + sealed::Describes {}

impl Way for NewUpload {}
impl Way for KnownUpload {}
impl Creates for NewUpload {}

pub(crate) mod sealed {
    use super::{Client, ClientError, Events, FileMetadata, Resume, UploadOptions, Uploaded};

    /// What all ways need.
    #[derive(Debug)]
    pub struct Context {
        pub(crate) client: Client,
        pub(crate) options: UploadOptions,
        pub(crate) resume: Option<Resume>,
        pub(crate) events: Events,
    }

    /// Sends the bytes.
    pub trait Run: Send + 'static {
        fn run(
            self,
            context: Context,
        ) -> impl Future<Output = Result<Uploaded, ClientError>> + Send;
    }

    /// Has a description of the file.
    pub trait Describes {
        fn file(&mut self) -> &mut FileMetadata;
    }
}

// === impl Client ===

impl Client {
    /// Prepares an upload of all of `source` through the gateway. `file` is its name, or all that the gateway keeps about it.
    /// If a try fails and can be resumed, the next one continues at the committed size.
    ///
    /// A [`Source::File`] sets `file_size`. If `file_size` and `file_id` are set, the same create finds an open upload again.
    ///
    /// # Errors
    /// The transfer fails with [`ClientError::Refused`] for an error that cannot be resumed, [`ClientError::NoProgress`] if
    /// nothing more was committed for [`RetryPolicy::timeout`], [`ClientError::Source`] if the source cannot be read,
    /// [`ClientError::FileChanged`] if a [`Source::File`] changes before all of it is sent, [`ClientError::NotRewindable`] if
    /// a pipe would have to be read again, [`ClientError::Mismatch`] if the object is not the file, [`ClientError::Resume`]
    /// if a resume store cannot be used.
    ///
    /// # Examples
    /// A pipe, whose size is not known:
    /// ```no_run
    /// use upload_gateway_client::{Client, Event, Source};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut transfer = client.upload("backup.tar", Source::pipe(tokio::io::stdin())).start();
    /// while let Some(event) = transfer.next().await {
    ///     if let Event::Retrying { cause, delay } = event {
    ///         println!("{cause}; next try in {delay:?}");
    ///     }
    /// }
    /// println!("{} bytes", transfer.finish().await?.size);
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload(
        &self,
        file: impl Into<FileMetadata>,
        source: Source,
    ) -> UploadBuilder<NewUpload> {
        let mut file = file.into();
        if file.file_size.is_none() {
            file.file_size = source.size().map(wire_size);
        }
        self.prepare(NewUpload { file, source })
    }

    /// Prepares the rest of an upload that was begun earlier, perhaps by another process. Before anything is sent, the
    /// committed parts are compared with the source.
    ///
    /// # Errors
    /// Those of [`Client::upload`], and [`ClientError::OtherFile`] if the source is not the file that the upload was begun with.
    ///
    /// # Examples
    /// ```no_run
    /// use upload_gateway_client::{Client, Source};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let uploaded = client.resume("uploads-…", Source::open("film.mp4").await?).await?;
    /// println!("resumed from byte {}", uploaded.resumed_from);
    /// # Ok(())
    /// # }
    /// ```
    pub fn resume(
        &self,
        upload_id: impl Into<String>,
        source: Source,
    ) -> UploadBuilder<KnownUpload> {
        self.prepare(KnownUpload {
            upload_id: upload_id.into(),
            source,
        })
    }

    pub(crate) fn prepare<W>(&self, way: W) -> UploadBuilder<W> {
        UploadBuilder {
            client: self.clone(),
            options: UploadOptions::default(),
            resume: None,
            way,
        }
    }
}

// === impl UploadBuilder ===

impl<W: Way> UploadBuilder<W> {
    /// The size in bytes of the messages. The default of 256 KiB performs best. Direct uploads ignore it.
    pub fn chunk_size(mut self, bytes: usize) -> Self {
        self.options.chunk_size = bytes;
        self
    }

    /// The maximum rate in bytes per second. By default there is no limit. Direct uploads apply it to whole parts.
    pub fn limit_rate(mut self, bytes_per_second: u64) -> Self {
        self.options.limit_rate = Some(bytes_per_second);
        self
    }

    /// Whether a digest of the whole file is computed, checked by the gateway, and compared with the object: by default yes. It is
    /// the one that [`file_digest`](crate::proto::v1::FileMetadata::file_digest) chooses. Direct uploads always compare the MD5.
    pub fn digest(mut self, on: bool) -> Self {
        self.options.digest = on;
        self
    }

    /// When the upload is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }

    /// What happens to the active stream of another sender: by default it ends. With [`Takeover::Forbid`] this upload fails
    /// with `WRITER_ACTIVE`. If that stream may be a broken one of an earlier try, the client waits until the gateway has
    /// noticed. Direct uploads ignore it.
    pub fn takeover(mut self, takeover: Takeover) -> Self {
        self.options.takeover = takeover;
        self
    }

    /// Starts the upload. It runs while the transfer is polled.
    pub fn start(self) -> Transfer<Uploaded> {
        let Self {
            client,
            options,
            resume,
            way,
        } = self;
        Transfer::new(|events| {
            way.run(Context {
                client,
                options,
                resume,
                events,
            })
        })
    }
}

impl<W: Creates> UploadBuilder<W> {
    /// The media type. By default it follows from the extension of the name.
    pub fn mime(mut self, media_type: impl Into<String>) -> Self {
        self.way.file().file_mime = media_type.into();
        self
    }

    /// The storage. By default the gateway's default storage.
    pub fn storage(mut self, storage_id: impl Into<String>) -> Self {
        self.way.file().storage_id = storage_id.into();
        self
    }

    /// The caller's own path of the file, which is kept with the record.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.way.file().file_path = path.into();
        self
    }

    /// The size of the file in bytes, if it is known. That of a [`Source::File`] is.
    pub fn size(mut self, bytes: u64) -> Self {
        self.way.file().file_size = Some(wire_size(bytes));
        self
    }

    /// Adds a label, by which uploads are found.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.way.file().tags.push(tag.into());
        self
    }

    /// Deletes the file this long after its upload is complete, in whole seconds. By default the storage decides.
    pub fn expire_after(mut self, time: Duration) -> Self {
        self.way.file().expire_after = Some(prost_types::Duration {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        });
        self
    }

    /// Adds an entry to the metadata of the object in the store.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.placement().metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a tag of the object in the store.
    pub fn object_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.placement()
            .object_tags
            .insert(key.into(), value.into());
        self
    }

    /// The storage class (S3) or access tier (Azure) of the object.
    pub fn storage_class(mut self, class: impl Into<String>) -> Self {
        self.placement().storage_class = class.into();
        self
    }

    fn placement(&mut self) -> &mut Placement {
        let file = self.way.file();
        file.placement.get_or_insert_default()
    }

    /// Keeps in `store`, under `key`, which upload this file has. The same call finds it there after any interruption: it
    /// resumes an open upload, and sends nothing if the file is complete and the gateway still has it. `check` decides whether
    /// the file is still the same; a changed one is uploaded again.
    ///
    /// Bytes are sent only after the store has kept the id, so a file is never in the store twice.
    ///
    /// # Examples
    /// ```no_run
    /// use std::sync::Arc;
    /// use upload_gateway_client::{Check, Client, FileResumeStore, Source};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Arc::new(FileResumeStore::open("/var/lib/importer/uploads")?);
    /// let source = Source::open("film.mp4").await?;
    /// let uploaded = client.upload("film.mp4", source).resume(store, "film.mp4", Check::Time).await?;
    /// println!("resumed from byte {}", uploaded.resumed_from);
    /// # Ok(())
    /// # }
    /// ```
    pub fn resume(
        mut self,
        store: Arc<dyn ResumeStore>,
        key: impl Into<String>,
        check: Check,
    ) -> Self {
        self.resume = Some(Resume {
            store,
            key: key.into(),
            check,
        });
        self
    }
}

impl<W: Way> IntoFuture for UploadBuilder<W> {
    type Output = Result<Uploaded, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start().finish())
    }
}

// === impl NewUpload ===

impl sealed::Run for NewUpload {
    async fn run(self, context: Context) -> Result<Uploaded, ClientError> {
        stream::send(self.source, Target::File(self.file), context).await
    }
}

impl sealed::Describes for NewUpload {
    fn file(&mut self) -> &mut FileMetadata {
        &mut self.file
    }
}

// === impl KnownUpload ===

impl sealed::Run for KnownUpload {
    async fn run(self, context: Context) -> Result<Uploaded, ClientError> {
        stream::send(self.source, Target::Upload(self.upload_id), context).await
    }
}

// === impl FileMetadata ===

impl From<&str> for FileMetadata {
    /// A file with this name.
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl From<Cow<'_, str>> for FileMetadata {
    /// A file with this name.
    fn from(name: Cow<'_, str>) -> Self {
        name.into_owned().into()
    }
}

impl From<String> for FileMetadata {
    /// A file with this name.
    fn from(file_name: String) -> Self {
        Self {
            file_name,
            ..Self::default()
        }
    }
}
