//! The arguments of `put`.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf, time::Duration};

use upload_gateway_client::{
    Check, RetryPolicy, UploadBuilder, Way,
    proto::v1::{FileDigest, FileMetadata, Placement, Takeover},
};

use super::files::{Candidate, Pattern, Selection};
use crate::{
    cli::{error::CliError, human, server::Server},
    values::ByteSize,
};

/// The most files that are sent at once: the gateway limits the streams of a connection.
const MAX_PARALLEL: usize = 64;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The files; `-` for standard input
    #[arg(value_name = "FILE", required_unless_present = "from_list")]
    pub(super) paths: Vec<PathBuf>,
    /// Send all files in the directories that are named, with their paths below them
    #[arg(short, long)]
    pub(super) recursive: bool,
    /// Send also the files that a list names, one path in each line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) from_list: Option<PathBuf>,
    /// Leave out names like this, `*.tmp`, or paths below the directory, `build/*`; can be repeated
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(super) exclude: Vec<Pattern>,
    /// Send what symbolic links in directories point to [default: leave them out]
    #[arg(long)]
    pub(super) follow_symlinks: bool,
    /// The number of files that are sent at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = parallel)]
    pub(super) parallel: NonZeroUsize,
    #[command(flatten)]
    pub(super) server: Server,
    /// Send the bytes straight to the store, in requests that the gateway signs
    #[arg(long, conflicts_with_all = ["resume", "no_takeover", "md5", "no_digest", "chunk_size"])]
    pub(super) direct: bool,
    /// Resume this upload instead of creating one
    #[arg(long, value_name = "ID", conflicts_with_all = [
        "name", "mime", "storage", "tags", "metadata", "storage_class", "expire_after", "checksum", "again",
        "md5",
    ])]
    pub(super) resume: Option<String>,
    /// Fail if another sender is active on this upload [default: take over]
    #[arg(long, requires = "resume")]
    pub(super) no_takeover: bool,
    /// Find out by size and MD5 whether a file was sent before [default: by size and modification time]
    #[arg(long)]
    pub(super) checksum: bool,
    /// Send files that were sent before, too, and begin uploads again
    #[arg(long, conflicts_with = "checksum")]
    pub(super) again: bool,
    /// Wait if no gateway answers at first, as long as --retry-timeout says [default: fail at once]
    #[arg(long)]
    pub(super) wait: bool,
    /// Print one JSON object for each file, and no progress
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) description: Description,
    #[command(flatten)]
    pub(super) sending: Sending,
}

/// What the gateway keeps about the files.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "File")]
pub(super) struct Description {
    /// The file's name in the store [default: its local name]
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The media type of the object [default: by the extension of the name]
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    mime: String,
    /// The storage for the file [default: that of the profile, otherwise the gateway's default storage]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    storage: String,
    /// A label of the file; can be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// An entry of the object's metadata in the store; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    metadata: Vec<(String, String)>,
    /// The storage class (S3) or access tier (Azure) of the object
    #[arg(
        long,
        value_name = "CLASS",
        default_value = "",
        hide_default_value = true
    )]
    storage_class: String,
    /// Delete the file this long after it was sent: 12h, 30d [default: the storage decides]
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration)]
    expire_after: Option<Duration>,
}

/// How bytes are sent.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Transfer")]
pub(super) struct Sending {
    /// Compare the MD5 of the whole file [default: the CRC64NVME, which is faster]
    #[arg(long, conflicts_with = "no_digest")]
    pub(super) md5: bool,
    /// Neither compute nor compare a digest of the whole file
    #[arg(long)]
    pub(super) no_digest: bool,
    /// The size of the messages
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = positive)]
    chunk_size: ByteSize,
    /// The maximum rate of each file in bytes per second, "10MiB" [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = positive)]
    pub(super) limit_rate: Option<ByteSize>,
    /// Stop retrying if no further byte was committed for this number of seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    retry_timeout: u64,
}

fn positive(text: &str) -> Result<ByteSize, &'static str> {
    match text.parse()? {
        ByteSize(0) => Err("must be at least 1"),
        size => Ok(size),
    }
}

fn parallel(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().and_then(NonZeroUsize::new);
    let number = number.filter(|number| number.get() <= MAX_PARALLEL);
    number.ok_or_else(|| format!("must be 1 to {MAX_PARALLEL}"))
}

fn entry(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

// === impl Sending ===

impl Sending {
    fn file_digest(&self) -> FileDigest {
        match (self.md5, self.no_digest) {
            (true, _) => FileDigest::Md5,
            (false, true) => FileDigest::None,
            (false, false) => FileDigest::Crc64nvme,
        }
    }
}

// === impl Arguments ===

impl Arguments {
    /// # Errors
    /// `Usage` for arguments that cannot be combined.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let is_one = self.only_file().is_some();
        if !is_one && self.description.name.is_some() {
            return Err(CliError::Usage("--name needs one file"));
        }
        if !is_one && self.resume.is_some() {
            return Err(CliError::Usage("--resume needs one file"));
        }
        let has_input = self.paths.iter().any(|path| path.as_os_str() == "-");
        if !is_one && has_input {
            return Err(CliError::Usage("standard input is sent alone"));
        }
        Ok(())
    }

    /// The file, if the command names only one.
    pub(super) fn only_file(&self) -> Option<Candidate> {
        match &self.paths[..] {
            [path] if !self.recursive && self.from_list.is_none() => Some(Candidate {
                path: path.clone(),
                below: String::new(),
                size: None,
            }),
            _ => None,
        }
    }

    pub(super) fn selection(&self) -> Selection {
        Selection {
            paths: self.paths.clone(),
            list: self.from_list.clone(),
            recursive: self.recursive,
            follow_symlinks: self.follow_symlinks,
            exclude: self.exclude.clone(),
        }
    }

    pub(super) fn check_by(&self) -> Check {
        match self.checksum {
            true => Check::Checksum,
            false => Check::Time,
        }
    }

    /// Sets how the bytes are sent.
    pub(super) fn configure<W: Way>(&self, upload: UploadBuilder<W>) -> UploadBuilder<W> {
        let upload = upload
            .chunk_size(usize::try_from(self.sending.chunk_size.0).unwrap_or(usize::MAX))
            .digest(!self.sending.no_digest)
            .retry(RetryPolicy {
                timeout: Duration::from_secs(self.sending.retry_timeout),
                ..RetryPolicy::default()
            })
            .takeover(match self.no_takeover {
                true => Takeover::Forbid,
                false => Takeover::Force,
            });
        match self.sending.limit_rate {
            Some(rate) => upload.limit_rate(rate.0),
            None => upload,
        }
    }

    /// What the gateway keeps about a file.
    pub(super) fn metadata(&self, file: &Candidate) -> Result<FileMetadata, CliError> {
        let description = &self.description;
        let placement = Placement {
            metadata: description.metadata.iter().cloned().collect(),
            storage_class: description.storage_class.clone(),
            ..Placement::default()
        };
        let expire_after = description.expire_after.map(|time| prost_types::Duration {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        });
        Ok(FileMetadata {
            file_name: self.name(file)?,
            file_mime: description.mime.clone(),
            file_path: file.below.clone(),
            tags: description.tags.clone(),
            storage_id: self.server.storage(&description.storage)?,
            file_digest: self.sending.file_digest().into(),
            expire_after,
            placement: (placement != Placement::default()).then(|| placement.into()),
            ..FileMetadata::default()
        })
    }

    fn name(&self, file: &Candidate) -> Result<String, CliError> {
        match &self.description.name {
            Some(name) => Ok(name.clone()),
            None if file.path.as_os_str() == "-" => Ok("stdin".into()),
            None => {
                let name = file.path.file_name().and_then(|name| name.to_str());
                name.map(str::to_owned).ok_or_else(|| {
                    CliError::failed("the name of the file is not UTF-8; set one with --name")
                })
            }
        }
    }

    /// What makes an upload another one: all that the command sets.
    pub(super) fn identity(&self, file: &FileMetadata) -> String {
        let placement = file.placement.as_deref().cloned().unwrap_or_default();
        let metadata: BTreeMap<_, _> = placement.metadata.into_iter().collect();
        serde_json::json!([
            file.file_name,
            file.file_mime,
            file.file_path,
            file.tags,
            file.storage_id,
            file.expire_after.map(|time| time.seconds),
            metadata,
            placement.storage_class,
            self.direct,
        ])
        .to_string()
    }
}
