//! The real binary: files are stored, also if the gateway is killed; outputs and exit codes are as documented.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use upload_gateway_client::Client;
use upload_gateway_core::upload::{Crc64Nvme, Md5};

use crate::common;

/// A gateway on its embedded stores, killed when dropped.
struct Gateway {
    child: Child,
    address: String,
}

/// The binary, without the environment variables of the caller.
fn binary() -> Command {
    let mut command = common::binary();
    command.stdin(Stdio::null());
    command
}

/// Runs the binary against this gateway.
fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    command(gateway, arguments).output().unwrap()
}

fn command(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = binary();
    command.args(arguments).env(
        "UPLOAD_GATEWAY_SERVER",
        format!("http://{}", gateway.address),
    );
    command
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file of this size whose parts all differ.
fn file(directory: &TempDir, name: &str, size: usize) -> (PathBuf, Vec<u8>) {
    let path = directory.path().join(name);
    let bytes: Vec<u8> = (0..size)
        .map(|index| u8::try_from((index * 31 + index / 255) % 251).unwrap())
        .collect();
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[test]
fn a_file_is_put_shown_and_listed() {
    let directory = TempDir::new().unwrap();
    let gateway = Gateway::start(directory.path());
    let (path, bytes) = file(&directory, "später.bin", 12_345_678);
    let path = path.to_str().unwrap();
    let options = ["--json", "--md5", "--tag", "a", "--mime", "text/plain"];
    let put = json(&run(&gateway, &[&["put", path], &options[..]].concat()));
    let md5 = Md5::of(&bytes).to_string();
    assert_eq!(put["size"], 12_345_678);
    assert_eq!(put["md5"], md5);
    assert_eq!(put["resumed_from"], 0);
    assert_eq!(put["bucket"], "uploads");
    let id = put["upload_id"].as_str().unwrap();
    assert_eq!(put["object_key"], format!("{id}/sp_ter.bin"));
    let mut keys: Vec<&String> = put.as_object().unwrap().keys().collect();
    keys.sort();
    let documented = [
        "bucket",
        "crc64nvme",
        "file",
        "md5",
        "object_key",
        "resumed_from",
        "size",
        "storage_id",
        "upload_id",
        "was_complete",
    ];
    assert_eq!(keys, documented);

    let status = json(&run(&gateway, &["status", id, "--json"]));
    assert_eq!(status["phase"], "COMPLETE");
    assert_eq!(status["object"]["md5"], md5);
    assert_eq!(status["file_name"], "später.bin");
    assert_eq!(status["tags"], serde_json::json!(["a"]));

    let list = json(&run(&gateway, &["ls", "--json"]));
    assert_eq!(list[0]["upload_id"], id);
    let open = json(&run(&gateway, &["ls", "--json", "--phase", "open"]));
    assert_eq!(open, serde_json::json!([]));
    let found = ["ls", "--json", "--name", "TER", "--name-prefix", "SP\u{c4}"];
    let filters = ["--tag", "a", "--phase", "complete", "--since", "2026-01-01"];
    let found = json(&run(&gateway, &[&found[..], &filters].concat()));
    assert_eq!(found[0]["upload_id"], id);
    for other in [["--storage", "x"], ["--until", "2026-01-01"]] {
        let none = json(&run(&gateway, &[&["ls", "--json"], &other[..]].concat()));
        assert_eq!(none, serde_json::json!([]), "{other:?}");
    }
    let people = run(&gateway, &["ls"]);
    assert!(
        String::from_utf8(people.stdout)
            .unwrap()
            .contains("später.bin")
    );
    let watched = run(&gateway, &["status", id, "--watch"]);
    assert!(
        String::from_utf8(watched.stdout)
            .unwrap()
            .contains("COMPLETE")
    );
}

#[test]
fn standard_input_is_put() {
    let directory = TempDir::new().unwrap();
    let gateway = Gateway::start(directory.path());
    let bytes = vec![7; 7_000_000];
    let mut put = command(&gateway, &["put", "-", "--json", "--name", "pipe.bin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(&bytes).unwrap();
    let put = json(&put.wait_with_output().unwrap());
    assert_eq!(put["size"], 7_000_000);
    assert_eq!(put["crc64nvme"], Crc64Nvme::of(&bytes).to_string());
    let empty = json(&run(&gateway, &["put", "-", "--json"]));
    assert_eq!(empty["size"], 0);
}

#[test]
fn progress_goes_to_standard_error_and_the_key_to_standard_output() {
    let directory = TempDir::new().unwrap();
    let gateway = Gateway::start(directory.path());
    let (path, _) = file(&directory, "a.bin", 11_000_000);
    let put = run(&gateway, &["put", path.to_str().unwrap()]);
    let data = String::from_utf8(put.stdout.clone()).unwrap();
    assert!(
        data.starts_with("uploads/uploads-") && data.ends_with("/a.bin\n"),
        "{data}"
    );
    assert!(
        errors(&put).contains("of 11000000 bytes"),
        "{}",
        errors(&put)
    );
    let arguments = ["put", path.to_str().unwrap(), "--json", "--no-digest"];
    let silent = run(&gateway, &arguments);
    assert_eq!(errors(&silent), "");
    let digests = ["md5", "crc64nvme"].map(|name| json(&silent)[name].clone());
    assert_eq!(digests, [Value::Null, Value::Null]);
}

#[test]
fn an_open_upload_is_resumed_by_its_id_or_aborted() {
    let directory = TempDir::new().unwrap();
    let gateway = Gateway::start(directory.path());
    let (path, bytes) = file(&directory, "a.bin", 16 << 20);
    let path = path.to_str().unwrap();

    let (put, id) = gateway.put_until_committed(path, 1);
    end(put);
    let resumed = json(&run(&gateway, &["put", path, "--json", "--resume", &id]));
    assert_eq!(resumed["upload_id"], id.as_str());
    assert_eq!(resumed["crc64nvme"], Crc64Nvme::of(&bytes).to_string());
    assert!(resumed["resumed_from"].as_u64().unwrap() >= 5 << 20);

    let (put, id) = gateway.put_until_committed(path, 1);
    end(put);
    assert!(run(&gateway, &["rm", &id]).status.success());
    let status = json(&run(&gateway, &["status", &id, "--json"]));
    assert_eq!(status["phase"], "ABORTED");
    let refused = run(&gateway, &["put", path, "--resume", &id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("[WRONG_PHASE]"),
        "{}",
        errors(&refused)
    );
}

#[test]
fn a_put_without_takeover_does_not_end_another_one() {
    let directory = TempDir::new().unwrap();
    let gateway = Gateway::start(directory.path());
    let (path, bytes) = file(&directory, "a.bin", 24 << 20);
    let path = path.to_str().unwrap();
    let (older, id) = gateway.put_until_committed(path, 1);
    let resume = ["put", path, "--resume", &id, "--no-takeover"];
    let newer = run(&gateway, &resume);
    assert_eq!(newer.status.code(), Some(1));
    for text in ["[WRITER_ACTIVE]", "omit --no-takeover"] {
        assert!(errors(&newer).contains(text), "{}", errors(&newer));
    }
    let older = json(&older.wait_with_output().unwrap());
    assert_eq!(older["crc64nvme"], Crc64Nvme::of(&bytes).to_string());
    assert!(run(&gateway, &resume).status.success());
}

#[test]
fn a_put_resumes_after_its_gateway_was_killed() {
    let directory = TempDir::new().unwrap();
    let mut gateway = Gateway::start(directory.path());
    let (path, bytes) = file(&directory, "a.bin", 24 << 20);
    let (put, _) = gateway.put_until_committed(path.to_str().unwrap(), 6 << 20);
    gateway.restart(directory.path());
    let put = json(&put.wait_with_output().unwrap());
    assert!(put["resumed_from"].as_u64().unwrap() >= 10 << 20, "{put}");
    assert_eq!(put["crc64nvme"], Crc64Nvme::of(&bytes).to_string());
}

#[test]
fn a_pipe_resumes_after_its_gateway_was_killed() {
    let directory = TempDir::new().unwrap();
    let mut gateway = Gateway::start(directory.path());
    let (path, bytes) = file(&directory, "a.bin", 24 << 20);
    let input = Stdio::from(fs::File::open(path).unwrap());
    let mut arguments = command(&gateway, &["put", "-", "--json", "--limit-rate", "8MiB"]);
    let put = arguments
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    gateway.wait_until_committed(6 << 20);
    gateway.restart(directory.path());
    let put = json(&put.wait_with_output().unwrap());
    assert!(put["resumed_from"].as_u64().unwrap() >= 10 << 20, "{put}");
    assert_eq!(put["crc64nvme"], Crc64Nvme::of(&bytes).to_string());
}

#[test]
fn a_direct_put_resumes_after_its_gateway_was_killed() {
    let directory = TempDir::new().unwrap();
    let mut gateway = Gateway::start(directory.path());
    let (path, bytes) = file(&directory, "a.bin", 24 << 20);
    let arguments = ["put", "--direct", path.to_str().unwrap()];
    let mut put = command(&gateway, &arguments)
        .args(["--limit-rate", "8MiB"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(put.stderr.take().unwrap()).lines();
    let moved = lines.find(|line| line.as_ref().unwrap().contains(" of 25165824 bytes"));
    assert!(moved.is_some());
    // Its embedded store is killed with it, and restarts on another port.
    gateway.restart(directory.path());
    let retried = lines.filter(|line| line.as_ref().unwrap().contains("retrying in"));
    assert!(retried.count() > 0);
    let put = put.wait_with_output().unwrap();
    assert!(put.status.success(), "{put:?}");

    let key = String::from_utf8(put.stdout).unwrap();
    let id = key.split('/').nth(1).unwrap();
    let link = run(&gateway, &["url", id, "--minutes", "5"]);
    let link = String::from_utf8(link.stdout).unwrap();
    assert!(download(link.trim()) == bytes);
}

#[tokio::main(flavor = "current_thread")]
async fn download(link: &str) -> Vec<u8> {
    let answer = reqwest::get(link).await.unwrap();
    assert!(answer.status().is_success(), "{link}: {answer:?}");
    answer.bytes().await.unwrap().to_vec()
}

#[test]
fn exit_codes_are_as_documented() {
    let help = binary().arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("64 invalid configuration")
    );
    for (arguments, code) in [
        (&["put"] as &[&str], 2),
        (&["nonsense"], 2),
        (&["put", "-", "--limit-rate", "0"], 2),
        (&["put", "-", "--direct"], 2),
        (&["put", "/dev/null", "--direct"], 2),
        (&["put", "a", "--direct", "--resume", "uploads-a"], 2),
        (&["put", "a", "--direct", "--no-digest"], 2),
        (&["url", "uploads-a", "--minutes", "1441"], 2),
        (&["url", "uploads-a", "--server", "http://127.0.0.1:1"], 1),
        (&["put", "/nonexistent"], 1),
        (&["put", "/"], 1),
        (&["ls", "--server", "http://127.0.0.1:1"], 1),
        (&["ls", "--server", "nowhere"], 1),
        (&["serve", "--config", "/nonexistent"], 64),
        (&["serve", "--grpc-listen", "0.0.0.0:0"], 64),
        (&["doctor", "--config", "/nonexistent"], 64),
    ] {
        let output = binary().args(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let wrong = binary()
        .env("UPLOAD_GATEWAY_LOG__LEVEL", "x")
        .arg("serve")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(
        errors(&wrong).contains("UPLOAD_GATEWAY_LOG__LEVEL"),
        "{}",
        errors(&wrong)
    );
}

#[test]
fn health_asks_the_listener_for_operations() {
    let server = common::gateway_process("operations_listen = \"127.0.0.1:0\"\n");
    let operations = common::poll(|| {
        let log = server.log();
        let mut lines = log.lines();
        let address = lines.find_map(|line| line.strip_prefix("operations listening on "));
        address.map(ToOwned::to_owned)
    });
    let operations = operations.unwrap();
    let health = |path: &str| {
        let url = format!("{operations}{path}");
        binary().args(["health", &url]).output().unwrap()
    };
    // It is ready after its first checks.
    let ready = common::poll(|| Some(health("/readyz")).filter(|output| output.status.success()));
    assert_eq!(json(&ready.unwrap())["status"], "ready");
    let unknown = health("/unknown");
    assert_eq!(unknown.status.code(), Some(1));
    drop(server);
    let gone = health("/readyz");
    assert_eq!(gone.status.code(), Some(1));
    assert!(errors(&gone).contains("/readyz: "), "{gone:?}");
}

#[test]
fn the_printed_configuration_holds_no_secret() {
    let output = binary()
        .args(["serve", "--print-config"])
        .env("UPLOAD_GATEWAY_REDIS_URL", "redis://:hunter2@127.0.0.1:1")
        .env("UPLOAD_GATEWAY_EMBEDDED__SECRET_ACCESS_KEY", "hunter2")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(
        printed.contains("redis_url = \"redis://:[redacted]@127.0.0.1:1\""),
        "{printed}"
    );
    assert!(printed.contains("[limits]"), "{printed}");
}

#[test]
fn doctor_accepts_the_embedded_stores_and_reports_a_missing_redis() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    let well = binary()
        .args(["doctor", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(well.status.success(), "{well:?}");
    let lines = String::from_utf8(well.stdout).unwrap();
    assert_eq!(lines.matches("ok    ").count(), 7, "{lines}");

    let config = directory.path().join("gateway.toml");
    let text = "redis_url = 'redis://127.0.0.1:1'\n[[storage]]\nid = 'media'\nkind = 's3'\nbucket = 'media'\n\
        region = 'us-east-1'\nendpoint = 'http://127.0.0.1:1'\naccess_key_id = 'a'\nsecret_access_key = 'b'";
    fs::write(&config, text).unwrap();
    let ill = binary()
        .args(["doctor", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(ill.status.code(), Some(1), "{ill:?}");
    let lines = String::from_utf8(ill.stdout).unwrap();
    assert!(
        lines.contains("FAIL  state in redis://127.0.0.1:1"),
        "{lines}"
    );
    assert!(lines.contains("FAIL  storage media"), "{lines}");
}

/// Ends a process with SIGKILL.
fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

// === impl Gateway ===

impl Gateway {
    fn start(directory: &Path) -> Self {
        Self::listen(directory, "127.0.0.1:0")
    }

    fn listen(directory: &Path, address: &str) -> Self {
        let mut child = binary()
            .args([
                "serve",
                "--http-listen",
                "127.0.0.1:0",
                "--grpc-listen",
                address,
                "--data-dir",
            ])
            .arg(directory.join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| {
                line.unwrap()
                    .strip_prefix("grpc listening on http://")
                    .map(str::to_owned)
            })
            .unwrap();
        // The rest of its output is dropped, but writing it must not fail.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Ends the process with SIGKILL, and starts another one in its place.
    fn restart(&mut self, directory: &Path) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        *self = Self::listen(directory, &self.address.clone());
    }

    /// Begins to put a file, slowly, and waits until at least `committed` bytes of it are committed.
    fn put_until_committed(&self, path: &str, committed: i64) -> (Child, String) {
        let arguments = ["put", path, "--again", "--json", "--limit-rate", "8MiB"];
        let put = command(self, &arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let id = self.wait_until_committed(committed);
        (put, id)
    }

    /// Waits until the newest open upload has `committed` bytes committed; returns its id.
    #[tokio::main(flavor = "current_thread")]
    async fn wait_until_committed(&self, committed: i64) -> String {
        let client = Client::connect(&format!("http://{}", self.address)).unwrap();
        loop {
            let open = upload_gateway_client::proto::v1::ListUploadsRequest {
                phase: upload_gateway_client::proto::v1::Phase::Open.into(),
                ..Default::default()
            };
            let page = client.list(open).await.unwrap();
            let Some(upload) = page.uploads.first() else {
                continue;
            };
            let mut changes = client.watch(&upload.upload_id).await.unwrap();
            while let Some(progress) = changes.message().await.unwrap() {
                assert_ne!(
                    progress.phase,
                    i32::from(upload_gateway_client::proto::v1::Phase::Complete)
                );
                if progress.committed_size >= committed {
                    return upload.upload_id.clone();
                }
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
