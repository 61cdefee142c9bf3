//! `demo`: a gateway on its embedded stores is killed during an upload, and the upload resumes.
//!
//! The gateway and `put` are separate processes of this binary, in a directory that is removed afterwards.

mod content;
mod gateway;
mod object;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{
    process::Command,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use upload_gateway_client::{Client, proto::v1::ListUploadsRequest};
use upload_gateway_core::upload::MIB;

use self::{
    content::{Content, ContentDigest},
    gateway::{Gateway, own_binary},
};
use super::{error::CliError, output};
use crate::private_files;

/// The size in bytes of the file that is uploaded.
const FILE_SIZE: u64 = 64 * MIB;

/// How fast the file is sent: slowly enough to kill the gateway during the upload.
const RATE: &str = "16MiB";

/// The gateway is killed when this number of bytes is committed: some parts, but not all.
const KILL_AT: u64 = 20 * MIB;

/// How long the whole demonstration may take.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The interval between two looks at the upload before the kill.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A directory that is removed when it is dropped.
#[derive(Debug)]
struct Directory(PathBuf);

pub(super) async fn run() -> Result<(), CliError> {
    let demonstration = timeout(TIME_LIMIT, demonstrate());
    tokio::select! {
        result = demonstration => result.map_err(|_| CliError::failed("the demonstration took more than 120 s"))?,
        _ = tokio::signal::ctrl_c() => Err(CliError::failed("interrupted")),
    }
}

async fn demonstrate() -> Result<(), CliError> {
    let begin = Instant::now();
    let directory = Directory::create()?;
    let file = directory.0.join("demo.bin");
    let path = file.clone();
    let sent = spawn_blocking(move || generate(&path)).await;
    let sent = sent
        .map_err(io::Error::from)
        .and_then(|generated| generated)
        .map_err(|error| CliError::input_output("generate a file", error))?;
    step(
        "generated",
        format_args!("{} bytes, SHA-256 {}", sent.size, sent.sha256),
    )?;
    let (gateway, answer) = put_despite_a_kill(&file, &directory.0.join("data")).await?;
    let key = answer["object_key"].as_str().unwrap_or_default();
    let stored = object::read(&gateway.s3, key).await?;
    step(
        "read back",
        format_args!("s3://{}/{key}", gateway.s3.bucket),
    )?;
    if stored != sent || answer["crc64nvme"].as_str() != Some(&sent.crc64nvme.to_string()) {
        let difference = format!("the object is not the file: {stored:?}, not {sent:?}");
        return Err(CliError::failed(difference));
    }
    step(
        "compared",
        format_args!(
            "SHA-256 {} and CRC64NVME {}: the same",
            stored.sha256, stored.crc64nvme
        ),
    )?;
    let seconds = begin.elapsed().as_secs_f64();
    output::data(format_args!(
        "\nThe resumed object equals the file, after {seconds:.1} s. Next: make run"
    ))
}

/// Uploads the file, kills the gateway during the upload and starts it again. Returns the running gateway and the output of
/// `put`.
async fn put_despite_a_kill(file: &Path, data_dir: &Path) -> Result<(Gateway, Value), CliError> {
    let mut gateway = Gateway::start(data_dir, "127.0.0.1:0").await?;
    step(
        "started",
        format_args!(
            "the gateway on {}, process {}",
            gateway.server(),
            gateway.process()
        ),
    )?;
    let put = Command::new(own_binary()?)
        .env_clear()
        .args([
            "put",
            "--json",
            "--limit-rate",
            RATE,
            "--server",
            &gateway.server(),
        ])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CliError::input_output("start put", error))?;
    let committed = wait_for_parts(&Client::connect(&gateway.server())?).await?;
    gateway.kill().await?;
    step(
        "killed",
        format_args!("the gateway with SIGKILL, {committed} bytes committed"),
    )?;
    let gateway = Gateway::start(data_dir, &gateway.address).await?;
    step(
        "restarted",
        format_args!("the gateway, process {}", gateway.process()),
    )?;

    let put = put.wait_with_output().await;
    let put = put.map_err(|error| CliError::input_output("wait for put", error))?;
    if !put.status.success() {
        return Err(CliError::failed(format!("put ended with {}", put.status)));
    }
    let answer: Value = serde_json::from_slice(&put.stdout)
        .map_err(|error| CliError::failed(format!("put printed no JSON: {error}")))?;
    let resumed_from = answer["resumed_from"].as_u64().unwrap_or_default();
    if resumed_from < committed {
        return Err(CliError::failed(format!(
            "put resumed from byte {resumed_from}, {committed} were committed before the kill"
        )));
    }
    step(
        "resumed",
        format_args!("from byte {resumed_from} of {}", answer["size"]),
    )?;
    Ok((gateway, answer))
}

/// Prints a step that succeeded.
fn step(done: &str, what: std::fmt::Arguments<'_>) -> Result<(), CliError> {
    output::data(format_args!("{done:11} {what}"))
}

/// Waits until the only upload has some parts, but not all, and returns how many bytes are committed.
async fn wait_for_parts(client: &Client) -> Result<u64, CliError> {
    loop {
        let page = client.list(ListUploadsRequest::default()).await?;
        let committed = page
            .uploads
            .first()
            .map_or(0, |upload| upload.committed_size);
        match u64::try_from(committed).unwrap_or_default() {
            FILE_SIZE.. => {
                return Err(CliError::failed(
                    "the upload was complete before the gateway was killed",
                ));
            }
            committed @ KILL_AT.. => return Ok(committed),
            _ => sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Writes a file with random content.
fn generate(path: &Path) -> io::Result<Content> {
    let mut random = StdRng::from_rng(&mut rand::rng());
    let mut file = private_files::create_new(path)?;
    let mut digest = ContentDigest::default();
    let mut block = vec![0; 1024 * 1024];
    for _ in 0..FILE_SIZE / MIB {
        random.fill_bytes(&mut block);
        digest.update(&block);
        io::Write::write_all(&mut file, &block)?;
    }
    Ok(digest.finish())
}

// === impl Directory ===

impl Directory {
    fn create() -> Result<Self, CliError> {
        let path = env::temp_dir().join(format!(
            "upload-gateway-demo-{:016x}",
            rand::random::<u64>()
        ));
        private_files::create_directory(&path)
            .map_err(|error| CliError::input_output(format!("create {}", path.display()), error))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            output::log(format_args!(
                "{} was not removed: {error}",
                self.0.display()
            ));
        }
    }
}
