//! Many small files: a directory sent by `upload-gateway put -r`, and straight to the store by `aws s3 cp --recursive`, in turns.

use std::{env, fs, path::Path, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{process::Command, time::Instant};

use crate::{Result, payload::Payload, process::Gateway, store::Store, turns::median};

/// The size of a file in bytes.
pub(crate) const SIZE: u64 = 4096;

/// How many files are in a directory.
const IN_DIRECTORY: usize = 100;

/// How often each is measured.
const TURNS: usize = 3;

/// Files per second, median.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) count: usize,
    /// `put -r` with its default of four files at once.
    pub(crate) put: f64,
    /// `put -r` with as many files at once as `aws s3 cp`.
    pub(crate) put_ten: f64,
    /// `put -r` again: all files are complete.
    pub(crate) again: f64,
    /// `aws s3 cp --recursive`, which sends ten files at once. `None`: it is not installed.
    pub(crate) aws: Option<f64>,
}

pub(crate) async fn measure(
    store: &Store,
    redis_url: &str,
    payload: &Payload,
    quick: bool,
) -> Result<Files> {
    let count = if quick { 1_000 } else { 10_000 };
    let directory = TempDir::with_prefix("upload-gateway-files.")?;
    let files = directory.path().join("files");
    write(&files, count, payload)?;
    let gateway = Gateway::start(store, redis_url)?;
    let [mut put, mut put_ten, mut again, mut aws] = [const { Vec::new() }; 4];
    for turn in 0..TURNS {
        for (times, parallel) in [(&mut put, "4"), (&mut put_ten, "10")] {
            // A state of its own: otherwise all files are complete.
            let state = directory.path().join(format!("{turn}-{parallel}"));
            times.push(run(put_command(&gateway, &files, &state, parallel)).await?);
            if parallel == "4" {
                again.push(run(put_command(&gateway, &files, &state, parallel)).await?);
            }
        }
        if let Some(command) = aws_command(store, &files, turn) {
            aws.push(run(command).await?);
        }
    }
    let rate = |times: Vec<Duration>| count as f64 / median(times).as_secs_f64();
    Ok(Files {
        count,
        put: rate(put),
        put_ten: rate(put_ten),
        again: rate(again),
        aws: (!aws.is_empty()).then(|| rate(aws)),
    })
}

/// Makes directories with small files.
fn write(files: &Path, count: usize, payload: &Payload) -> Result<()> {
    let contents = payload.pieces(count as u64 * SIZE, SIZE);
    for (number, (_, content)) in contents.enumerate() {
        let directory = files.join(format!("{:03}", number / IN_DIRECTORY));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("{number:05}.bin")), content)?;
    }
    Ok(())
}

fn put_command(gateway: &Gateway, files: &Path, state: &Path, parallel: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
    command
        .args(["put", "-r", "--parallel", parallel, "--server"])
        .arg(&gateway.address)
        .arg(files)
        .env("XDG_STATE_HOME", state);
    command
}

/// `None`: `aws` is not installed.
fn aws_command(store: &Store, files: &Path, turn: usize) -> Option<Command> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/aws");
    let mut command = Command::new(program.exists().then_some(program)?);
    let [access_key, secret_key] = store.credentials();
    command
        .args([
            "s3",
            "cp",
            "--recursive",
            "--only-show-errors",
            "--endpoint-url",
        ])
        .arg(store.endpoint())
        .arg(files)
        .arg(format!("s3://{}/aws-{turn}/", store.bucket))
        .env("AWS_ACCESS_KEY_ID", access_key)
        .env("AWS_SECRET_ACCESS_KEY", secret_key)
        .env("AWS_REGION", "us-east-1");
    Some(command)
}

async fn run(mut command: Command) -> Result<Duration> {
    let begin = Instant::now();
    let output = command.stdout(Stdio::null()).output().await?;
    let elapsed = begin.elapsed();
    if output.status.success() {
        return Ok(elapsed);
    }
    Err(String::from_utf8_lossy(&output.stderr).into())
}
