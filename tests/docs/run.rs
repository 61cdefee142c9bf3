//! Runs a section's commands, and compares what they print.

use std::{
    any::Any,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tempfile::TempDir;
use tokio::process::Command;

use super::{
    common::{RedisBackend, S3Backend, TestGateway, bytes},
    page::{Fence, Page, fences},
};

/// The addresses and names in the pages. A test replaces them with those of its own gateway and stores.
const GRPC: &str = "127.0.0.1:50051";
const HTTP: &str = "127.0.0.1:8080";
const REDIS: &str = "127.0.0.1:6379";
const S3: &str = "http://127.0.0.1:9000";
const BUCKET: &str = "my-bucket";

/// What the shell prints before each command block, and when one of its commands fails.
pub(crate) const MARK: &str = "@@";

/// A gateway that commands run against, and what replaces the addresses and names of the pages.
pub(crate) struct Setup {
    pub(crate) gateway: TestGateway,
    replacements: Vec<(&'static str, String)>,
    variables: Vec<(&'static str, String)>,
    /// The servers of its stores, which stop when they are dropped.
    _servers: Option<Box<dyn Any + Send + Sync>>,
}

/// Runs the section's commands in a directory with `file.bin` and `gateway.toml`, and compares what each block prints.
pub(crate) async fn run_section(page: &str, heading: &str, setup: &Setup) {
    let page = Page::read(page);
    let fences = fences(page.section(heading));
    let mut script = format!("exec 2>&1\ntrap 'echo \"{MARK}failed: $BASH_COMMAND\"' ERR\n");
    let mut blocks: Vec<(&Fence, Option<&Fence>)> = Vec::new();
    for (index, fence) in fences.iter().enumerate() {
        if fence.language == "sh" {
            let shown = fences.get(index + 1);
            blocks.push((
                fence,
                shown.filter(|next| matches!(&*next.language, "json" | "text")),
            ));
            script += &format!("echo '{MARK}block'\n{}", setup.replace(&fence.text));
        }
    }
    assert!(!blocks.is_empty(), "nothing to run in {heading}");
    let directory = TempDir::new().unwrap();
    for name in ["examples", "proto"] {
        symlink(repository().join(name), directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("file.bin"), bytes(12 << 20)).unwrap();
    let config = setup.replace(&gateway_toml());
    fs::write(directory.path().join("gateway.toml"), config).unwrap();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory.path())
        .env("PATH", path())
        .env("UPLOAD_GATEWAY_SERVER", &setup.gateway.grpc)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("XDG_CONFIG_HOME", directory.path())
        .env("XDG_STATE_HOME", directory.path())
        .envs(setup.variables.iter().cloned())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let output = printed(&output);
    let outputs: Vec<&str> = output.split(&format!("{MARK}block\n")).skip(1).collect();
    assert_eq!(
        outputs.len(),
        blocks.len(),
        "the shell ended early: {output}"
    );
    for ((commands, shown), output) in blocks.into_iter().zip(outputs) {
        let refused = shown.is_some_and(|shown| shown.text.contains("ERROR:"));
        assert!(
            refused || !output.contains(MARK),
            "{}\n{output}",
            commands.text
        );
        if let Some(shown) = shown {
            assert_prints(&shown.text, output);
        }
    }
}

/// The configuration that the README shows, and that the commands of all pages use.
pub(crate) fn gateway_toml() -> String {
    let readme = Page::read("README.md");
    let fences = fences(readme.section("Run on Redis and S3")).into_iter();
    let mut configurations = fences.filter(|fence| fence.language == "toml");
    configurations.next().unwrap().text
}

/// Every line of `shown` is found in `output`, in that order, where `…` stands for anything and any space for any other.
pub(crate) fn assert_prints(shown: &str, output: &str) {
    let mut lines = output.lines().map(squeeze);
    for line in shown
        .lines()
        .map(squeeze)
        .filter(|line| !line.is_empty() && line != "…")
    {
        let found = lines.any(|printed| {
            let mut rest = printed.as_str();
            line.split('…')
                .map(str::trim)
                .all(|piece| match rest.find(piece) {
                    Some(at) => {
                        rest = &rest[at + piece.len()..];
                        true
                    }
                    None => false,
                })
        });
        assert!(found, "not printed: {line}\nprinted:\n{output}");
    }
}

pub(crate) fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where the pages' programs are found: this build's binary, and what the tests have installed.
pub(crate) fn path() -> std::ffi::OsString {
    let binary = Path::new(env!("CARGO_BIN_EXE_upload-gateway"))
        .parent()
        .unwrap();
    let tools = repository().join(".tools");
    let mut directories = vec![binary.to_owned(), tools.join("venv/bin"), tools.join("bin")];
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(directories).unwrap()
}

pub(crate) fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

pub(crate) fn printed(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(all).unwrap()
}

// === impl Setup ===

impl Setup {
    pub(crate) fn new(gateway: TestGateway) -> Self {
        let replacements = vec![
            (GRPC, without_scheme(&gateway.grpc)),
            (HTTP, without_scheme(&gateway.http)),
        ];
        Self {
            gateway,
            replacements,
            variables: Vec::new(),
            _servers: None,
        }
    }

    /// Replaces the Redis and the bucket of the pages with these.
    pub(crate) fn with_stores(mut self, redis: &RedisBackend, s3: &S3Backend) -> Self {
        self.replacements.extend([
            (REDIS, without_scheme(&redis.url)),
            (S3, s3.endpoint.clone()),
            (BUCKET, s3.bucket.clone()),
        ]);
        self.variables.extend([
            ("AWS_ACCESS_KEY_ID", s3.access_key.into()),
            ("AWS_SECRET_ACCESS_KEY", s3.secret_key.into()),
        ]);
        self
    }

    /// Keeps the servers of its stores running.
    pub(crate) fn holding(mut self, servers: impl Any + Send + Sync) -> Self {
        self._servers = Some(Box::new(servers));
        self
    }

    fn replace(&self, text: &str) -> String {
        let replacements = self.replacements.iter();
        replacements.fold(text.to_owned(), |text, (shown, own)| {
            text.replace(shown, own)
        })
    }
}

fn without_scheme(url: &str) -> String {
    url.split_once("://")
        .map_or(url, |(_, rest)| rest)
        .to_owned()
}
