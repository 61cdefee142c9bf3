//! `get`: downloads the files of finished uploads.

use std::{
    ffi::OsString,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, stream};
use serde_json::json;
use tokio::io::stdout;
use upload_gateway_client::{
    Client, ClientError, RetryPolicy,
    proto::v1::{ListUploadsRequest, Phase, Upload},
};

use super::{
    error::{CliError, chain},
    find::{find_ids, is_beginning},
    interrupt::Interrupts,
    output,
    progress::{Display, Files},
    server::Server,
};

/// The most files that `--name` finds.
const MAX_FOUND: usize = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The ids of the uploads, or their beginnings: 4 digits or more; then where to store them: a directory, the path of one
    /// file, or `-` for standard output [default: by their names in the current directory]
    #[arg(value_name = "ID [DIR|FILE|-]", required_unless_present = "name")]
    words: Vec<String>,
    /// Where to store them, also if it looks like an id
    #[arg(short, long, value_name = "DIR|FILE|-")]
    output: Option<PathBuf>,
    /// Download all files with this text in their names
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// The number of files that are downloaded at once, and of the ranges of a large one
    #[arg(long, value_name = "N", default_value = "4")]
    parallel: NonZeroUsize,
    #[command(flatten)]
    server: Server,
    /// Replace existing files
    #[arg(long)]
    force: bool,
    /// Stop retrying if no further byte arrived for this number of seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    retry_timeout: u64,
    /// Print one JSON object for each file, and no progress
    #[arg(long)]
    json: bool,
}

/// Where files are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    StandardOutput,
    /// By their names, in a directory.
    Directory(PathBuf),
    File(PathBuf),
}

/// What a command downloads.
struct Downloads<'a> {
    arguments: &'a Arguments,
    client: Client,
    display: Display,
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()
        .map_err(|error| CliError::input_output("listen for signals", error))?;
    let (beginnings, target) = arguments.split();
    if arguments.json && target == Target::StandardOutput {
        return Err(CliError::Usage("--json and - both need standard output"));
    }
    tokio::select! {
        done = Box::pin(arguments.run(&beginnings, target.clone())) => done,
        signal = interrupts.next() => {
            if target != Target::StandardOutput {
                output::log("what has arrived is kept: run the same command again to resume");
            }
            Err(CliError::Interrupted(signal))
        }
    }
}

// === impl Arguments ===

impl Arguments {
    /// The beginnings of the ids, and the target.
    fn split(&self) -> (Vec<&str>, Target) {
        let mut beginnings: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let has_ids = self.name.is_none();
        let is_target =
            |word: &str| word == "-" || !has_ids || Path::new(word).is_dir() || !is_beginning(word);
        // The only word is an id, though one that is not found.
        let has_target = self.output.is_none() && (!has_ids || beginnings.len() > 1);
        let last = beginnings
            .pop_if(|last| has_target && is_target(last))
            .map(PathBuf::from);
        let target = match self.output.clone().or(last) {
            None => Target::Directory(PathBuf::new()),
            Some(path) if path.as_os_str() == "-" => Target::StandardOutput,
            Some(path) if path.is_dir() || path.to_string_lossy().ends_with('/') => {
                Target::Directory(path)
            }
            Some(path) => Target::File(path),
        };
        (beginnings, target)
    }

    async fn run(&self, beginnings: &[&str], target: Target) -> Result<(), CliError> {
        let client = self.server.client().await?;
        let uploads = self.uploads(&client, beginnings).await?;
        let files = match uploads.len() {
            0 => return Err(CliError::failed("no finished upload has this name")),
            1 => Files::One,
            _ => Files::Many,
        };
        if files == Files::Many && !matches!(target, Target::Directory(_)) {
            let problem = format!("{} files need a directory", uploads.len());
            return Err(CliError::failed(problem));
        }
        let downloads = Downloads {
            arguments: self,
            client,
            display: Display::new(files, self.json),
            target,
        };
        for object in uploads.iter().filter_map(|upload| upload.object.as_ref()) {
            downloads.display.expect(u64::try_from(object.size).ok());
        }
        let done = match &uploads[..] {
            [only] => Box::pin(downloads.download(only)).await,
            several => downloads.download_all(several).await,
        };
        downloads.display.clear();
        done
    }

    /// The records of the uploads.
    async fn uploads(&self, client: &Client, beginnings: &[&str]) -> Result<Vec<Upload>, CliError> {
        let mut uploads = Vec::new();
        let beginnings: Vec<_> = beginnings.iter().map(|id| (*id).to_owned()).collect();
        for id in find_ids(client, &beginnings).await? {
            uploads.push(client.get(&id).await?);
        }
        let Some(name) = &self.name else {
            return Ok(uploads);
        };
        let mut page_token = String::new();
        loop {
            let request = ListUploadsRequest {
                page_token,
                name_contains: name.clone(),
                phase: Phase::Complete.into(),
                ..ListUploadsRequest::default()
            };
            let page = client.list(request).await?;
            uploads.extend(page.uploads);
            page_token = page.next_page_token;
            if uploads.len() > MAX_FOUND {
                let problem =
                    format!("more than {MAX_FOUND} files have this name; use a longer text");
                return Err(CliError::failed(problem));
            }
            if page_token.is_empty() {
                return Ok(uploads);
            }
        }
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            timeout: Duration::from_secs(self.retry_timeout),
            ..RetryPolicy::default()
        }
    }
}

// === impl Downloads ===

impl Downloads<'_> {
    async fn download_all(&self, uploads: &[Upload]) -> Result<(), CliError> {
        let parallel = self.arguments.parallel.get();
        let downloads = uploads
            .iter()
            .map(|upload| async move { (upload, self.download(upload).await) });
        let mut done = stream::iter(downloads).buffer_unordered(parallel);
        let (mut failed, total) = (0, uploads.len());
        while let Some((upload, result)) = Box::pin(done.next()).await {
            if let Err(error) = result {
                failed += 1;
                let file = output::file(upload);
                self.display
                    .log(format_args!("error: {file}: {}", chain(&error)));
                if self.arguments.json {
                    let failure = json!({"upload_id": upload.upload_id, "error": chain(&error)});
                    self.display.data(failure)?;
                }
            }
        }
        match failed {
            0 => Ok(()),
            failed => Err(CliError::failed(format!(
                "{failed} of {total} files failed"
            ))),
        }
    }

    async fn download(&self, upload: &Upload) -> Result<(), CliError> {
        let Some(object) = &upload.object else {
            let phase = output::phase(upload);
            return Err(CliError::failed(format!(
                "the upload is {phase}; only a COMPLETE one has a file"
            )));
        };
        let path = match &self.target {
            Target::StandardOutput => None,
            Target::Directory(directory) => Some(directory.join(local_name(upload)?)),
            Target::File(path) => Some(path.clone()),
        };
        let (id, retry) = (&*upload.upload_id, self.arguments.retry());
        let mut transfer = match &path {
            None => self.client.download(id).retry(retry).write_to(stdout()),
            Some(path) => {
                let download = self.client.download_file(id, path);
                download
                    .parallel(self.arguments.parallel.get())
                    .replace(self.arguments.force)
                    .retry(retry)
                    .start()
            }
        };
        let size = u64::try_from(object.size).ok();
        let name = upload.file.as_ref().map_or("", |file| &*file.file_name);
        let mut reporter = self.display.file(name, size);
        while let Some(event) = transfer.next().await {
            reporter.report(event);
        }
        let finished = transfer.finish().await;
        drop(reporter);
        let downloaded = finished.map_err(explain)?;
        let Some(path) = path else { return Ok(()) };
        if self.arguments.json {
            return self.display.data(json!({
                "upload_id": upload.upload_id,
                "file": path.to_string_lossy(),
                "size": downloaded.size,
                "resumed_from": downloaded.resumed_from,
            }));
        }
        self.display.data(path.display())
    }
}

/// The error with the option that helps.
fn explain(error: ClientError) -> CliError {
    match error {
        ClientError::File { path, source, .. }
            if source.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            CliError::failed(format!("{} exists; --force replaces it", path.display()))
        }
        error => error.into(),
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Get {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn split(words: &[&str]) -> (Vec<String>, Target) {
        let words = [&["get"], words].concat();
        let get = Get::try_parse_from(words).unwrap();
        let (beginnings, target) = get.arguments.split();
        (beginnings.into_iter().map(str::to_owned).collect(), target)
    }

    #[test]
    fn the_last_word_is_the_target_unless_it_is_an_id() {
        let here = Target::Directory(PathBuf::new());
        let file = |name: &str| Target::File(name.into());
        for (words, ids, target) in [
            (&["0123abcd"][..], 1, here.clone()),
            (&["copy.bin"], 1, here.clone()),
            (&["0123abcd", "4567abcd"], 2, here.clone()),
            (&["0123abcd", "copy.bin"], 1, file("copy.bin")),
            (&["0123abcd", "-"], 1, Target::StandardOutput),
            (&["0123abcd", "/"], 1, Target::Directory("/".into())),
            (&["0123abcd", "new/"], 1, Target::Directory("new/".into())),
            (&["0123abcd", "-o", "4567abcd"], 1, file("4567abcd")),
            (&["--name", "a"], 0, here),
            (&["--name", "a", "4567abcd"], 0, file("4567abcd")),
        ] {
            let (found, found_target) = split(words);
            assert_eq!((found.len(), found_target), (ids, target), "{words:?}");
        }
    }
}
