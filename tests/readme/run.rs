//! Runs a section's commands, and compares what they print.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tempfile::TempDir;
use tokio::process::Command;

use super::{
    common::{TestGateway, bytes},
    page::{Fence, fences, section},
};

/// The addresses in the README; a test puts its own gateway's there.
const GRPC: &str = "127.0.0.1:50051";
const HTTP: &str = "127.0.0.1:8080";

/// What the shell prints before each command block, and when one of its commands fails.
pub(crate) const MARK: &str = "@@";

/// Runs the section's commands in a directory with `file.bin`, and compares what each block prints.
pub(crate) async fn run_section(heading: &str, gateway: &TestGateway) {
    let [grpc, http] = [&gateway.grpc, &gateway.http].map(|url| &url["http://".len()..]);
    let fences = fences(section(heading));
    let mut script = format!("exec 2>&1\ntrap 'echo \"{MARK}failed: $BASH_COMMAND\"' ERR\n");
    let mut blocks: Vec<(&Fence, Option<&Fence>)> = Vec::new();
    for (index, fence) in fences.iter().enumerate() {
        if fence.language == "sh" {
            let shown = fences.get(index + 1);
            blocks.push((
                fence,
                shown.filter(|next| matches!(&*next.language, "json" | "text")),
            ));
            script += &format!(
                "echo '{MARK}block'\n{}",
                fence.text.replace(GRPC, grpc).replace(HTTP, http)
            );
        }
    }
    assert!(!blocks.is_empty(), "nothing to run in {heading}");
    let directory = TempDir::new().unwrap();
    for name in ["examples", "proto"] {
        symlink(repository().join(name), directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("file.bin"), bytes(12 << 20)).unwrap();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory.path())
        .env("PATH", path())
        .env("UPLOAD_GATEWAY_SERVER", &gateway.grpc)
        .env("PYTHONDONTWRITEBYTECODE", "1")
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

/// Where the README's programs are found: this build's binary, and what the tests have installed.
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
