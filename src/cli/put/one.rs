//! Sends one file, or standard input.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use etcetera::{BaseStrategy, choose_base_strategy};
use tokio::{
    fs::File,
    io::{self, AsyncReadExt, AsyncSeekExt, stdin},
};
use upload_gateway_client::{
    Client, Creates, FileResumeStore, ResumeStore, SavedUpload, Source, Transfer, UploadBuilder,
    Uploaded,
};
use upload_gateway_core::upload::Md5;

use super::{Arguments, DIRECT_NEEDS_A_FILE, files::Candidate, running::Running};
use crate::cli::{error::CliError, progress::Display};

/// The directory of the state, in that of the user.
const STATE: &str = "upload-gateway/uploads";

/// Sends files to one gateway.
pub(super) struct Sender {
    client: Client,
    pub(super) arguments: Arguments,
    pub(super) display: Display,
    /// Which upload each file has.
    store: Option<Arc<dyn ResumeStore>>,
    running: Running,
}

/// What is known of an upload that was begun.
#[derive(Debug, Default)]
pub(super) struct Begun {
    pub(super) upload_id: Option<String>,
    /// Whether the same command continues it.
    pub(super) is_kept: bool,
}

/// Keeps uploads, and does not find them again.
struct Again(FileResumeStore);

/// The source of the bytes.
pub(super) enum Input {
    /// A regular file and its size.
    File(File, u64),
    /// Bytes that can be read once.
    Pipe(Source),
}

// === impl Sender ===

impl Sender {
    pub(super) fn new(client: Client, arguments: Arguments, display: Display) -> Self {
        let keeps_state = arguments.resume.is_none();
        let store = match keeps_state.then(|| open_state(arguments.again)) {
            None => None,
            Some(Ok(store)) => Some(store),
            Some(Err(error)) => {
                // In a container the home directory is often read-only.
                display.log(format_args!(
                    "no state is kept, so that an interrupted upload begins again: {error}"
                ));
                None
            }
        };
        Self {
            client,
            arguments,
            display,
            store,
            running: Running::default(),
        }
    }

    /// Sends a file that the display expects, from `input` if it is open already. `begun` is kept up to date, also if it is
    /// interrupted.
    pub(super) async fn send(
        &self,
        file: &Candidate,
        input: Option<Input>,
        begun: &mut Begun,
    ) -> Result<Uploaded, CliError> {
        let _turn = self
            .running
            .begin(format!(
                "{} {}",
                file.absolute_path()?.display(),
                file.below
            ))
            .await;
        let input = match input {
            Some(input) => input,
            None => open(&file.path).await.inspect_err(|_| {
                self.display.end(file.size.unwrap_or_default());
            })?,
        };
        let size = input.size();
        let is_found_again = self.store.is_some() || self.arguments.direct;
        begun.is_kept = size.is_some() && is_found_again;
        self.display.resize(file.size, size);
        let name = file.path.display().to_string();
        let mut reporter = self.display.file(&name, size);
        if self.arguments.direct {
            reporter.prepare("computing the MD5");
        }
        let mut transfer = self.start(input, file).await?;
        while let Some(event) = transfer.next().await {
            reporter.report(event);
            if begun.upload_id.as_deref() != reporter.upload_id() {
                begun.upload_id = reporter.upload_id().map(str::to_owned);
            }
        }
        Ok(transfer.finish().await?)
    }

    async fn start(&self, input: Input, file: &Candidate) -> Result<Transfer<Uploaded>, CliError> {
        let (arguments, client) = (&self.arguments, &self.client);
        let source = match input {
            Input::File(content, _) if arguments.direct => {
                let metadata = arguments.metadata(file)?;
                let identity = arguments.identity(&metadata);
                let upload = client.upload_direct(metadata, content.into_std().await);
                return self.start_kept(upload, file, &identity);
            }
            Input::Pipe(_) if arguments.direct => return Err(CliError::Usage(DIRECT_NEEDS_A_FILE)),
            Input::File(content, _) => {
                let failed = |error| CliError::input_output("read the size of the file", error);
                Source::file(content).await.map_err(failed)?
            }
            Input::Pipe(source) => source,
        };
        if let Some(upload_id) = &arguments.resume {
            let upload = client.resume(upload_id, source);
            return Ok(arguments.configure(upload).start());
        }
        let metadata = arguments.metadata(file)?;
        let identity = arguments.identity(&metadata);
        // The bytes of a pipe have no name by which they are found again.
        let is_file = matches!(source, Source::File(_));
        let upload = client.upload(metadata, source);
        match is_file {
            true => self.start_kept(upload, file, &identity),
            false => Ok(arguments.configure(upload).start()),
        }
    }

    /// Starts an upload that the same command continues.
    fn start_kept<W: Creates>(
        &self,
        upload: UploadBuilder<W>,
        file: &Candidate,
        identity: &str,
    ) -> Result<Transfer<Uploaded>, CliError> {
        let upload = self.arguments.configure(upload);
        let Some(store) = &self.store else {
            return Ok(upload.start());
        };
        let (server, path) = (self.client.server(), file.absolute_path()?);
        let key = Md5::of(format!("{server} {} {identity}", path.display()).as_bytes());
        let check = self.arguments.check_by();
        let upload = upload.resume(Arc::clone(store), key.to_string(), check);
        Ok(upload.start())
    }
}

// === impl Input ===

impl Input {
    fn size(&self) -> Option<u64> {
        match self {
            Self::File(_, size) => Some(*size),
            Self::Pipe(_) => None,
        }
    }
}

// === impl Again ===

#[async_trait]
impl ResumeStore for Again {
    async fn load(&self, _: &str) -> io::Result<Option<SavedUpload>> {
        Ok(None)
    }

    async fn claim(&self, key: &str, _: Option<&SavedUpload>) -> io::Result<()> {
        let saved = self.0.load(key).await?;
        self.0.claim(key, saved.as_ref()).await
    }

    async fn save(&self, key: &str, upload: &SavedUpload) -> io::Result<()> {
        self.0.save(key, upload).await
    }
}

/// Opens a file, and checks that it can be sent. A pipe must not be opened twice: its writer would fail in between.
pub(super) async fn open_checked(
    arguments: &Arguments,
    file: &Candidate,
) -> Result<Input, CliError> {
    let input = open(&file.path).await?;
    arguments.metadata(file)?;
    match input {
        Input::Pipe(_) if arguments.direct => Err(CliError::Usage(DIRECT_NEEDS_A_FILE)),
        input => Ok(input),
    }
}

async fn open(path: &Path) -> Result<Input, CliError> {
    if path.as_os_str() == "-" {
        return Ok(Input::Pipe(Source::pipe(stdin())));
    }
    let failed = |error| CliError::input_output(format!("open {}", path.display()), error);
    let mut file = File::open(path).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        let problem = format!(
            "{} is a directory; -r sends the files in it",
            path.display()
        );
        return Err(CliError::failed(problem));
    }
    let has_size =
        metadata.is_file() && (metadata.len() > 0 || is_empty(&mut file).await.map_err(failed)?);
    if has_size {
        return Ok(Input::File(file, metadata.len()));
    }
    Ok(Input::Pipe(Source::pipe(file)))
}

/// Whether a file whose size is 0 has no bytes. Files of the kernel, such as `/proc/cpuinfo`, have no size, but bytes.
async fn is_empty(file: &mut File) -> io::Result<bool> {
    let count = file.read(&mut [0]).await?;
    file.rewind().await?;
    Ok(count == 0)
}

fn open_state(again: bool) -> io::Result<Arc<dyn ResumeStore>> {
    let directories = choose_base_strategy().map_err(io::Error::other)?;
    let state = directories.state_dir();
    let directory = state.unwrap_or_else(|| directories.data_dir()).join(STATE);
    let store = FileResumeStore::open(directory)?;
    Ok(match again {
        true => Arc::new(Again(store)),
        false => Arc::new(store),
    })
}
