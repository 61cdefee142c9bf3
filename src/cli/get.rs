//! `get`: downloads the file of a finished upload.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::{
    fs::{self, File, OpenOptions},
    io::{self, AsyncReadExt, AsyncWrite, AsyncWriteExt, stdout},
};
use upload_gateway_client::{
    Client, ClientError, Download, DownloadOptions, Event,
    proto::v1::{ErrorReason, Upload},
};
use upload_gateway_core::upload::{FileDigest, Md5};

use super::{error::CliError, interrupt::Interrupts, output, progress::Reporter, server::Server};

/// How many bytes of a partial file are read at a time.
const BLOCK: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The id of the upload
    #[arg(value_name = "ID")]
    upload_id: String,
    /// Where to store the file; `-` for standard output [default: its name, in the current directory]
    file: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// Stop retrying if no further byte arrived for this number of seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    retry_timeout: u64,
    /// Print one JSON object at the end, and no progress
    #[arg(long)]
    json: bool,
}

/// What has arrived of a file.
struct Arrived {
    digest: FileDigest,
    size: u64,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()
        .map_err(|error| CliError::input_output("listen for signals", error))?;
    tokio::select! {
        done = Box::pin(arguments.run()) => done,
        signal = interrupts.next() => {
            if !arguments.is_to_stdout() {
                output::log("what has arrived is kept: run the same command again to resume");
            }
            Err(CliError::Interrupted(signal))
        }
    }
}

// === impl Arguments ===

impl Arguments {
    fn is_to_stdout(&self) -> bool {
        self.file
            .as_ref()
            .is_some_and(|file| file.as_os_str() == "-")
    }

    async fn run(&self) -> Result<(), CliError> {
        if self.json && self.is_to_stdout() {
            return Err(CliError::Usage("--json and - both need standard output"));
        }
        let client = self.server.client().await?;
        let upload = client.get(&self.upload_id).await?;
        let Some(size) = upload.object.as_ref().map(|object| object.size) else {
            let phase = output::phase(&upload);
            return Err(CliError::failed(format!(
                "the upload is {phase}; only a COMPLETE one has a file"
            )));
        };
        let mut reporter = Reporter::new(u64::try_from(size).ok(), self.json);
        let done = match self.is_to_stdout() {
            true => {
                let nothing = Arrived::nothing();
                let mut file = stdout();
                self.receive(&client, &mut file, nothing, &mut reporter)
                    .await
            }
            false => self.store(&client, &upload, &mut reporter).await,
        };
        reporter.clear();
        done
    }

    /// Downloads beside the place of the file, and moves it there when it is whole.
    async fn store(
        &self,
        client: &Client,
        upload: &Upload,
        reporter: &mut Reporter,
    ) -> Result<(), CliError> {
        let path = match &self.file {
            Some(path) => path.clone(),
            None => local_name(upload)?.into(),
        };
        let failed = |action: &str, path: &Path| {
            let action = format!("{action} {}", path.display());
            |error| CliError::input_output(action, error)
        };
        if !self.force
            && fs::try_exists(&path)
                .await
                .map_err(failed("look for", &path))?
        {
            let path = path.display();
            return Err(CliError::failed(format!(
                "{path} exists; --force replaces it"
            )));
        }
        let partial = partial_path(&path, &upload.upload_id);
        let mut options = OpenOptions::new();
        let open = options.create(true).read(true).append(true).open(&partial);
        let mut file = open.await.map_err(failed("open", &partial))?;
        let arrived = Arrived::read(&mut file)
            .await
            .map_err(failed("read", &partial))?;
        let received = self.receive(client, &mut file, arrived, reporter).await;
        if is_other_file(&received) {
            // Otherwise the next call would fail, too.
            let removed = fs::remove_file(&partial).await;
            removed.map_err(failed("remove", &partial))?;
            let partial = partial.display();
            output::log(format_args!("{partial} had other bytes and is removed"));
        }
        received?;
        file.sync_all().await.map_err(failed("write", &partial))?;
        let moved = fs::rename(&partial, &path).await;
        moved.map_err(failed("write", &path))?;
        if self.json {
            return output::data(json!({
                "upload_id": upload.upload_id,
                "file": path.to_string_lossy(),
                "size": upload.object.as_ref().map(|object| object.size),
            }));
        }
        output::data(path.display())
    }

    /// Writes the rest of the file, and compares the whole of it with the record.
    async fn receive(
        &self,
        client: &Client,
        file: &mut (impl AsyncWrite + Unpin),
        mut arrived: Arrived,
        reporter: &mut Reporter,
    ) -> Result<(), CliError> {
        let options = DownloadOptions {
            offset: arrived.size,
            retry_timeout: Duration::from_secs(self.retry_timeout),
        };
        let download = client.download(&self.upload_id, &options, |event: Event<'_>| {
            reporter.report(&event);
        });
        let mut download = download.await?;
        if arrived.size > 0 {
            reporter.resume_from(arrived.size);
        }
        let failed = |error| CliError::input_output("write the file", error);
        while let Some(bytes) = download.next(|event| reporter.report(&event)).await? {
            file.write_all(&bytes).await.map_err(failed)?;
            arrived.add(&bytes);
            reporter.advance(arrived.size);
        }
        file.flush().await.map_err(failed)?;
        Ok(arrived.check(&download)?)
    }
}

// === impl Arrived ===

impl Arrived {
    fn nothing() -> Self {
        Self {
            digest: FileDigest::default(),
            size: 0,
        }
    }

    /// All that a partial file has.
    async fn read(file: &mut File) -> io::Result<Self> {
        let (mut arrived, mut block) = (Self::nothing(), vec![0; BLOCK]);
        loop {
            match file.read(&mut block).await? {
                0 => return Ok(arrived),
                count => arrived.add(&block[..count]),
            }
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Compares the MD5 with that of the record, if it has one.
    fn check(self, download: &Download) -> Result<(), ClientError> {
        let upload = download.upload();
        let expected = upload.object.as_ref().map_or("", |object| &object.md5);
        let found: Md5 = self.digest.finish();
        if expected.is_empty() || expected == found.to_string() {
            return Ok(());
        }
        Err(ClientError::Mismatch {
            upload_id: upload.upload_id.clone(),
            what: "MD5",
            expected: found.to_string(),
            found: expected.to_owned(),
        })
    }
}

/// Whether what had arrived before is not of this file.
fn is_other_file(received: &Result<(), CliError>) -> bool {
    match received {
        Err(CliError::Client(ClientError::Mismatch { .. })) => true,
        Err(CliError::Client(ClientError::Refused(refusal))) => {
            refusal.reason == Some(ErrorReason::WrongOffset)
        }
        _ => false,
    }
}

/// The name of the file, in the current directory.
fn local_name(upload: &Upload) -> Result<OsString, CliError> {
    let name = upload.file.as_ref().map_or("", |file| &file.file_name);
    // The gateway refuses others. A file must not be written elsewhere, whatever a server answers.
    match Path::new(name).file_name() {
        Some(only) if only == name => Ok(only.to_owned()),
        _ => Err(CliError::failed(
            "the name of the file is a path; name the file to write",
        )),
    }
}

/// Where a file is until it is whole. Downloads of other uploads to the same place have other partial files.
fn partial_path(path: &Path, upload_id: &str) -> PathBuf {
    let tail = upload_id.len().saturating_sub(8);
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(
        ".{}.part",
        upload_id.get(tail..).unwrap_or(upload_id)
    ));
    partial.into()
}
