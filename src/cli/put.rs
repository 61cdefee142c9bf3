//! `put`: uploads a file or standard input.

mod resume;

use std::{env, path::PathBuf, time::Duration};

use serde_json::json;
use tokio::{
    fs::File,
    io::{self, AsyncReadExt, AsyncSeekExt, stdin},
};
use upload_gateway_client::{
    Client, ClientError, Event, Refusal, Source, Target, UploadOptions, Uploaded,
    proto::v1::{ErrorReason, FileMetadata, Takeover},
};

use super::{error::CliError, interrupt::Interrupts, output, progress::Reporter, server::Server};
use crate::values::ByteSize;

const DIRECT_NEEDS_A_FILE: &str = "--direct reads a regular file of known size more than once, which standard input, a pipe \
    or a file of the kernel is not; omit --direct, or name another file";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file; `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    server: Server,
    /// The file's name in the store [default: its local name]
    #[arg(long)]
    name: Option<String>,
    /// The media type of the object
    #[arg(long, value_name = "TYPE", default_value = "")]
    mime: String,
    /// The storage for the file [default: the gateway's default storage]
    #[arg(long, value_name = "ID", default_value = "")]
    storage: String,
    /// A label of the file; can be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Send the bytes straight to the store, in requests that the gateway signs; the same command again sends only the
    /// missing parts
    #[arg(long, conflicts_with_all = ["resume", "no_takeover", "no_digest", "chunk_size"])]
    direct: bool,
    /// Resume this upload instead of creating one
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "mime", "storage", "tags"])]
    resume: Option<String>,
    /// Fail if another sender is active on this upload [default: take over]
    #[arg(long, requires = "resume")]
    no_takeover: bool,
    /// Neither compute nor compare an MD5 of the whole file
    #[arg(long)]
    no_digest: bool,
    /// The size of the messages
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = positive)]
    chunk_size: ByteSize,
    /// The maximum rate in bytes per second, "10MiB" [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = positive)]
    limit_rate: Option<ByteSize>,
    /// Stop retrying if no further byte was committed for this number of seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    retry_timeout: u64,
    /// Wait if no gateway answers at first, as long as --retry-timeout says [default: fail at once]
    #[arg(long)]
    wait: bool,
    /// Print one JSON object at the end, and no progress
    #[arg(long)]
    json: bool,
}

/// The source of the bytes.
enum Input {
    /// A regular file and its size.
    File(File, u64),
    /// Bytes that can be read once.
    Pipe(Source),
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()
        .map_err(|error| CliError::input_output("listen for signals", error))?;
    let input = arguments.open().await?;
    if arguments.direct && matches!(input, Input::Pipe(_)) {
        return Err(CliError::Usage(DIRECT_NEEDS_A_FILE));
    }
    let client = tokio::select! {
        client = arguments.server.retrying_client(arguments.wait) => client?,
        signal = interrupts.next() => return Err(CliError::Interrupted(signal)),
    };
    let mut reporter = Reporter::new(input.size(), arguments.json);
    let uploaded = tokio::select! {
        uploaded = arguments.upload(&client, input, &mut reporter) => uploaded,
        signal = interrupts.next() => Err(CliError::Interrupted(signal)),
    };
    reporter.clear();
    match uploaded {
        Ok(uploaded) => show(&uploaded, arguments.json),
        Err(error) => {
            match &error {
                CliError::Client(ClientError::Refused(refusal))
                    if refusal.reason == Some(ErrorReason::WriterActive) =>
                {
                    explain_active_writer(refusal);
                }
                error => arguments.explain_resume(reporter.upload_id(), error),
            }
            Err(error)
        }
    }
}

/// Explains the refusal of an upload on which another sender is active.
fn explain_active_writer(refusal: &Refusal) {
    let left = refusal.retry_delay.unwrap_or_default().as_secs_f64();
    output::log(format_args!(
        "another sender is active on this upload; if it has stopped, the gateway detects that in {left:.0} s: try again then, \
         or omit --no-takeover to take over now"
    ));
}

/// Whether a file whose size is 0 has no bytes. Files of the kernel, such as `/proc/cpuinfo`, have no size, but bytes.
async fn is_empty(file: &mut File) -> io::Result<bool> {
    let count = file.read(&mut [0]).await?;
    file.rewind().await?;
    Ok(count == 0)
}

fn positive(text: &str) -> Result<ByteSize, &'static str> {
    match text.parse()? {
        ByteSize(0) => Err("must be at least 1"),
        size => Ok(size),
    }
}

fn show(uploaded: &Uploaded, json: bool) -> Result<(), CliError> {
    let upload = &uploaded.upload;
    let object = upload.object.clone().unwrap_or_default();
    let md5 = uploaded.md5.map(|md5| md5.to_string());
    if json {
        return output::data(json!({
            "upload_id": upload.upload_id,
            "storage_id": upload.storage_id,
            "bucket": object.bucket,
            "object_key": object.key,
            "size": uploaded.size,
            "md5": md5,
            "resumed_from": uploaded.resumed_from,
        }));
    }
    if uploaded.resumed_from > 0 {
        output::log(format_args!("resumed from byte {}", uploaded.resumed_from));
    }
    if let Some(md5) = md5 {
        output::log(format_args!("{} bytes, MD5 {md5}", uploaded.size));
    }
    output::data(format_args!("{}/{}", object.bucket, object.key))
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

// === impl Arguments ===

impl Arguments {
    async fn open(&self) -> Result<Input, CliError> {
        if self.file.as_os_str() == "-" {
            return Ok(Input::Pipe(Source::pipe(stdin())));
        }
        let failed = |error| CliError::input_output(format!("open {}", self.file.display()), error);
        let mut file = File::open(&self.file).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        if metadata.is_dir() {
            return Err(CliError::failed(format!(
                "{} is a directory",
                self.file.display()
            )));
        }
        let has_size = metadata.is_file()
            && (metadata.len() > 0 || is_empty(&mut file).await.map_err(failed)?);
        if has_size {
            return Ok(Input::File(file, metadata.len()));
        }
        Ok(Input::Pipe(Source::pipe(file)))
    }

    /// Uploads, and reports the progress to `reporter`.
    async fn upload(
        &self,
        client: &Client,
        input: Input,
        reporter: &mut Reporter,
    ) -> Result<Uploaded, CliError> {
        let options = self.options();
        let size = input.size();
        let source = match input {
            Input::File(file, _) if self.direct => {
                reporter.prepare("computing the MD5");
                let (file, metadata) = (file.into_std().await, self.metadata(size)?);
                let report = |event: Event<'_>| reporter.report(&event);
                let uploading = client.upload_direct(file, metadata, &options, report);
                return Ok(Box::pin(uploading).await?);
            }
            Input::File(file, _) => {
                let failed = |error| CliError::input_output("read the size of the file", error);
                Source::file(file).await.map_err(failed)?
            }
            Input::Pipe(source) => source,
        };
        let target = match &self.resume {
            Some(upload_id) => Target::Upload(upload_id.clone()),
            None => Target::File(self.metadata(size)?),
        };
        let report = |event: Event<'_>| reporter.report(&event);
        Ok(client.upload(source, target, &options, report).await?)
    }

    /// Explains how to resume the upload with this id, unless that would fail again.
    fn explain_resume(&self, upload_id: Option<&str>, error: &CliError) {
        let upload_id = upload_id.or(resume::upload_id(error));
        let Some(upload_id) = upload_id.or(self.resume.as_deref()) else {
            return;
        };
        if !resume::can_resume(error) {
            return;
        }
        if self.direct {
            let words = env::args_os().map(|word| word.to_string_lossy().into_owned());
            output::log("the parts in the store are kept: run the same command again to resume");
            return output::log(format_args!("Resume with: {}", resume::shell_line(words)));
        }
        let same_input = match self.file.as_os_str() == "-" {
            true => " the same input and",
            false => "",
        };
        output::log("the committed parts are kept");
        output::log(format_args!(
            "Resume with{same_input}: {}",
            resume::shell_line(self.resume_command(upload_id))
        ));
    }

    /// The words of the command that resumes the upload.
    fn resume_command(&self, upload_id: &str) -> Vec<String> {
        let file = match self.file.to_string_lossy() {
            // Otherwise it looks like an option.
            file if file.starts_with('-') && file != "-" => format!("./{file}"),
            file => file.into_owned(),
        };
        let program = env::args().next().unwrap_or_default();
        let mut words = vec![program, "put".into(), file];
        words.extend(["--resume".into(), upload_id.into()]);
        words.extend(self.server.words());
        if let Some(rate) = self.limit_rate {
            words.extend(["--limit-rate".into(), rate.to_string()]);
        }
        let flags = [(self.no_digest, "--no-digest"), (self.json, "--json")];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        words.extend(flags.map(|(_, flag)| flag.to_owned()));
        words
    }

    fn options(&self) -> UploadOptions {
        UploadOptions {
            chunk_size: usize::try_from(self.chunk_size.0).unwrap_or(usize::MAX),
            limit_rate: self.limit_rate.map(|rate| rate.0),
            digest: !self.no_digest,
            retry_timeout: Duration::from_secs(self.retry_timeout),
            takeover: if self.no_takeover {
                Takeover::Forbid
            } else {
                Takeover::Force
            },
        }
    }

    fn metadata(&self, file_size: Option<u64>) -> Result<FileMetadata, CliError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if self.file.as_os_str() == "-" => "stdin".into(),
            None => {
                let name = self.file.file_name().and_then(|name| name.to_str());
                name.map(str::to_owned).ok_or_else(|| {
                    CliError::failed("the name of the file is not UTF-8; set one with --name")
                })?
            }
        };
        Ok(FileMetadata {
            file_name: name,
            file_size: file_size.and_then(|size| i64::try_from(size).ok()),
            file_mime: self.mime.clone(),
            tags: self.tags.clone(),
            storage_id: self.storage.clone(),
            skip_file_digest: self.no_digest,
            ..FileMetadata::default()
        })
    }
}
