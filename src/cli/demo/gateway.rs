//! A gateway in a separate process.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::cli::error::CliError;

/// How long a gateway may take to print its listen addresses.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running gateway; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    // Kept open: the gateway fails to write its output after the pipe is closed.
    _output: BufReader<ChildStdout>,
    /// Its listen address for gRPC, `127.0.0.1:50051`.
    pub(super) address: String,
    /// Its embedded S3.
    pub(super) s3: EmbeddedS3,
}

/// The embedded S3, as the gateway prints it.
#[derive(Debug, Default)]
pub(super) struct EmbeddedS3 {
    pub(super) endpoint: String,
    pub(super) bucket: String,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
}

// === impl Gateway ===

impl Gateway {
    /// Starts one on `data_dir` that listens for gRPC at `address`, and waits until it has printed its listen addresses.
    pub(super) async fn start(data_dir: &Path, address: &str) -> Result<Self, CliError> {
        let mut child = Command::new(own_binary()?)
            // The caller's environment may contain settings of another gateway.
            .env_clear()
            .env("UPLOAD_GATEWAY_LOG__FILTER", "error")
            .args([
                "serve",
                "--http-listen",
                "127.0.0.1:0",
                "--grpc-listen",
                address,
                "--data-dir",
            ])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| CliError::input_output("start the gateway", error))?;
        let Some(output) = child.stdout.take() else {
            return Err(CliError::failed("the gateway has no output"));
        };
        let mut output = BufReader::new(output);
        let named = timeout(START_LIMIT, listeners(&mut output)).await;
        let (address, s3) = named.map_err(|_| {
            CliError::failed("the gateway did not print its listen addresses in time")
        })??;
        Ok(Self {
            child,
            _output: output,
            address,
            s3,
        })
    }

    /// Its URL for clients.
    pub(super) fn server(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process id.
    pub(super) fn process(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Ends it with SIGKILL.
    pub(super) async fn kill(&mut self) -> Result<(), CliError> {
        let killed = self.child.kill().await;
        killed.map_err(|error| CliError::input_output("kill the gateway", error))
    }
}

/// The program that runs right now.
pub(super) fn own_binary() -> Result<PathBuf, CliError> {
    env::current_exe().map_err(|error| CliError::input_output("find this program", error))
}

/// Reads the lines that a gateway prints when it starts.
async fn listeners(output: &mut BufReader<ChildStdout>) -> Result<(String, EmbeddedS3), CliError> {
    let mut address = None;
    loop {
        let mut line = String::new();
        let read = output.read_line(&mut line).await;
        if read.map_err(|error| CliError::input_output("read the gateway's output", error))? == 0 {
            return Err(CliError::failed("the gateway stopped before it served"));
        }
        if let Some(found) = line.trim().strip_prefix("grpc listening on http://") {
            address = Some(found.to_owned());
        }
        if let (Some(rest), Some(address)) = (line.trim().strip_prefix("embedded s3 at "), &address)
        {
            return Ok((address.clone(), EmbeddedS3::parse(rest)));
        }
    }
}

// === impl EmbeddedS3 ===

impl EmbeddedS3 {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let endpoint = words.next().unwrap_or_default().to_owned();
        let mut found = Self {
            endpoint,
            ..Self::default()
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "bucket" => found.bucket = value.to_owned(),
                "access_key_id" => found.access_key_id = value.to_owned(),
                "secret_access_key" => found.secret_access_key = value.to_owned(),
                _ => {}
            }
        }
        found
    }
}
