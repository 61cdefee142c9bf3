//! `put`: uploads a file or standard input.

use std::{path::PathBuf, time::Duration};

use serde_json::json;
use tokio::{fs::File, io::stdin};

use super::{CliError, Server, output, progress::Reporter};
use crate::{
    client::{Source, Target, UploadOptions, Uploaded},
    config::ByteSize,
    proto::v1::FileMetadata,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file; `-` for standard input
    file: PathBuf,
    #[command(flatten)]
    server: Server,
    /// The file's name in the store [default: the name it has here]
    #[arg(long)]
    name: Option<String>,
    /// The media type the object gets
    #[arg(long, value_name = "TYPE", default_value = "")]
    mime: String,
    /// The storage it goes to [default: the gateway's default one]
    #[arg(long, value_name = "ID", default_value = "")]
    storage: String,
    /// A label to find the file by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Go on with this upload instead of creating one
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "mime", "storage", "tags"])]
    resume: Option<String>,
    /// Neither keep nor compare an MD5 of the whole file
    #[arg(long)]
    no_digest: bool,
    /// The size of the messages that are sent
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = positive)]
    chunk_size: ByteSize,
    /// The most bytes a second, "10MiB" [default: as fast as it goes]
    #[arg(long, value_name = "SIZE", value_parser = positive)]
    limit_rate: Option<ByteSize>,
    /// Give up when nothing more was committed for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    /// Print one JSON object when it is done, and no progress
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let client = arguments.server.client()?;
    let (source, file_size) = arguments.open().await?;
    let target = match &arguments.resume {
        Some(upload_id) => Target::Upload(upload_id.clone()),
        None => Target::File(arguments.metadata(file_size)?),
    };
    let options = UploadOptions {
        chunk_size: usize::try_from(arguments.chunk_size.0).unwrap_or(usize::MAX),
        limit_rate: arguments.limit_rate.map(|rate| rate.0),
        digest: !arguments.no_digest,
        patience: Duration::from_secs(arguments.patience),
    };
    let mut reporter = Reporter::new(file_size, arguments.json);
    let uploaded = tokio::select! {
        uploaded = client.upload(source, target, &options, |event| reporter.tell(&event)) => Some(uploaded),
        _ = tokio::signal::ctrl_c() => None,
    };
    reporter.clear();
    match uploaded {
        Some(Ok(uploaded)) => show(&uploaded, arguments.json),
        Some(Err(error)) => {
            reporter.tell_how_to_resume();
            Err(error.into())
        }
        None => {
            reporter.tell_how_to_resume();
            Err(CliError::failed("interrupted"))
        }
    }
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
        output::note(format_args!("resumed from byte {}", uploaded.resumed_from));
    }
    if let Some(md5) = md5 {
        output::note(format_args!("{} bytes, MD5 {md5}", uploaded.size));
    }
    output::data(format_args!("{}/{}", object.bucket, object.key))
}

// === impl Arguments ===

impl Arguments {
    /// The source, and its size where that is known.
    async fn open(&self) -> Result<(Source, Option<u64>), CliError> {
        if self.file.as_os_str() == "-" {
            return Ok((Source::pipe(stdin()), None));
        }
        let failed = |error| CliError::input_output(format!("open {}", self.file.display()), error);
        let file = File::open(&self.file).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        if metadata.is_dir() {
            return Err(CliError::failed(format!(
                "{} is a directory",
                self.file.display()
            )));
        }
        if metadata.is_file() {
            return Ok((Source::seekable(file), Some(metadata.len())));
        }
        Ok((Source::pipe(file), None))
    }

    fn metadata(&self, file_size: Option<u64>) -> Result<FileMetadata, CliError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if self.file.as_os_str() == "-" => "stdin".into(),
            None => {
                let name = self.file.file_name().and_then(|name| name.to_str());
                name.map(str::to_owned).ok_or_else(|| {
                    CliError::failed("the file has no name in UTF-8; give one with --name")
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
