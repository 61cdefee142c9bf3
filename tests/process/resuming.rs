//! What `put` prints to resume an upload that did not complete, and that it works.

use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use upload_gateway_client::proto::v1::{ListUploadsRequest, Phase};

use crate::{
    client::command,
    common::{TestGateway, bytes},
};

const SIZE: usize = 12 << 20;

#[tokio::test]
async fn a_signal_prints_the_command_that_resumes() {
    let gateway = TestGateway::start().await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("it's a file.bin");
    let path = path.to_str().unwrap();
    std::fs::write(path, bytes(SIZE)).unwrap();
    for signal in ["TERM", "HUP", "INT"] {
        let arguments = ["put", path, "--json", "--again", "--limit-rate", "8MiB"];
        let (id, output) = interrupted(&gateway, &arguments, signal).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(output.stdout, b"", "{output:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.contains(&format!("interrupted by SIG{signal}")),
            "{errors}"
        );
        let line = errors
            .lines()
            .find_map(|line| line.strip_prefix("Resume with: "));
        // Otherwise it would begin again.
        let line = line.expect(&errors).to_owned();
        assert!(!line.contains("--again"), "{line}");
        let resumed = shell(&format!("exec {line}"))
            .env("UPLOAD_GATEWAY_SERVER", &gateway.grpc)
            .env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .output()
            .await
            .unwrap();
        assert!(resumed.status.success(), "{resumed:?}");
        let put: Value = serde_json::from_slice(&resumed.stdout).unwrap();
        assert_eq!(put["upload_id"], id);
        assert!(put["resumed_from"].as_u64().unwrap() >= 5 << 20, "{put}");
    }
}

#[tokio::test]
async fn a_signal_that_the_parent_ignores_stays_ignored() {
    let gateway = TestGateway::start().await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.bin");
    std::fs::write(&path, bytes(SIZE)).unwrap();
    let script = format!(
        "trap '' HUP; exec {} put {} --json --limit-rate 8MiB",
        env!("CARGO_BIN_EXE_upload-gateway"),
        path.display()
    );
    let mut command = shell(&script);
    command.env("UPLOAD_GATEWAY_SERVER", &gateway.grpc);
    let put = command.spawn().unwrap();
    committed(&gateway).await;
    signal(put.id().unwrap(), "HUP").await;
    let output = put.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn no_command_is_printed_for_an_upload_that_was_aborted() {
    let gateway = TestGateway::start().await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.bin");
    std::fs::write(&path, bytes(SIZE)).unwrap();
    let put = command(
        &gateway,
        &["put", path.to_str().unwrap(), "--limit-rate", "8MiB"],
    )
    .spawn()
    .unwrap();
    let id = committed(&gateway).await;
    let removed = command(&gateway, &["rm", &id]).output().await.unwrap();
    assert!(removed.status.success(), "{removed:?}");
    let output = put.wait_with_output().await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(!errors.to_lowercase().contains("resume with"), "{errors}");
}

#[tokio::test]
async fn a_direct_put_prints_its_whole_command() {
    let gateway = TestGateway::start().await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a b.bin");
    let path = path.to_str().unwrap();
    std::fs::write(path, bytes(SIZE)).unwrap();
    let mut put = command(&gateway, &["put", "--direct", path, "--limit-rate", "4MiB"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(put.stderr.take().unwrap()).lines();
    let mut next = async || lines.next_line().await.unwrap().unwrap();
    while !next().await.contains(" of 12582912 bytes") {}
    signal(put.id().unwrap(), "TERM").await;
    let line = loop {
        if let Some(line) = next().await.strip_prefix("Resume with: ") {
            break line.to_owned();
        }
    };
    assert!(
        line.ends_with(&format!("put --direct '{path}' --limit-rate 4MiB")),
        "{line}"
    );
}

#[tokio::test]
async fn another_file_is_refused_before_a_byte_is_sent() {
    let gateway = TestGateway::start().await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.bin");
    let right = bytes(SIZE);
    std::fs::write(&path, &right).unwrap();
    let path = path.to_str().unwrap();
    let slowly = ["put", path, "--limit-rate", "8MiB"];
    let (id, _) = interrupted(&gateway, &slowly, "TERM").await;
    let committed = gateway.get(&id).await.unwrap().committed_size;

    let mut changed = right.clone();
    changed[1 << 20] ^= 1;
    let longer = [&right[..], b"more"].concat();
    for (wrong, difference) in [
        (&changed[..], "part 1, at byte 0, has another CRC64NVME"),
        (&longer, "its size is 12582916, not 12582912"),
        (&right[..1 << 20], "its size is 1048576, not 12582912"),
    ] {
        std::fs::write(path, wrong).unwrap();
        let resume = ["put", path, "--resume", &id, "--no-digest"];
        let refused = command(&gateway, &resume).output().await.unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(errors.contains(difference), "{errors}");
        assert!(!errors.contains("Resume with"), "{errors}");
    }
    let mut from_pipe = command(&gateway, &["put", "-", "--resume", &id]);
    let short = std::fs::File::open(path).unwrap();
    let refused = from_pipe.stdin(short).output().await.unwrap();
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.contains("it has fewer than the"), "{errors}");

    let upload = gateway.get(&id).await.unwrap();
    assert_eq!(upload.phase(), Phase::Open);
    // The gateway can commit a part that it had received before the signal.
    assert!(upload.committed_size >= committed, "{upload:?}");
    std::fs::write(path, &right).unwrap();
    let resumed = command(&gateway, &["put", path, "--resume", &id]);
    assert!({ resumed }.output().await.unwrap().status.success());
    let upload = gateway.get(&id).await.unwrap();
    assert!(gateway.read(&upload).await == right);
}

/// Runs the command until a part is committed, and sends it the signal. Returns the upload's id, and what it printed.
async fn interrupted(gateway: &TestGateway, arguments: &[&str], name: &str) -> (String, Output) {
    let put = command(gateway, arguments).spawn().unwrap();
    let id = committed(gateway).await;
    signal(put.id().unwrap(), name).await;
    (id, put.wait_with_output().await.unwrap())
}

/// Waits until a part of an open upload is committed; returns the id.
pub(crate) async fn committed(gateway: &TestGateway) -> String {
    let mut client = gateway.client().await;
    loop {
        let open = ListUploadsRequest {
            phase: Phase::Open.into(),
            ..ListUploadsRequest::default()
        };
        let page = client.list_uploads(open).await.unwrap().into_inner();
        let mut uploads = page.uploads.into_iter();
        if let Some(upload) = uploads.find(|upload| upload.committed_size > 0) {
            return upload.upload_id;
        }
    }
}

/// Sends a signal to a process.
pub(crate) async fn signal(process: u32, name: &str) {
    let sent = shell(&format!("kill -{name} {process}")).status().await;
    assert!(sent.unwrap().success());
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
