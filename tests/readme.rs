//! The README is true: its commands run against a real gateway and print what it shows, and its tables say what the
//! code says.
//!
//! Fences marked `sh` are run, section by section, each section in one shell; the `json` or `text` after one is what it
//! prints, with `…` for anything. Fences marked `console` are for people.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

#[path = "common/lib.rs"]
mod common;

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use common::{Server, TestGateway, bytes};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tempfile::TempDir;
use tokio::process::Command;
use upload_gateway::{
    client::Client,
    config::{self, Config, Flags},
    error::Kind,
    proto::{FILE_DESCRIPTOR_SET, v1::ListUploadsRequest, v1::Phase},
    status,
    upload::Md5,
};

const README: &str = include_str!("../README.md");

/// The address in the README; a test puts its own gateway's there.
const ADDRESS: &str = "127.0.0.1:50051";

/// What the shell prints before each command block, and when one of its commands fails.
const MARK: &str = "@@";

/// A storage whose endpoint nobody listens on.
const STORE_THAT_IS_AWAY: &str = r#"
[[storage]]
id = "away"
kind = "s3"
bucket = "away"
endpoint = "http://127.0.0.1:1"
access_key_id = "id"
secret_access_key = "secret"
"#;

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
struct Fence {
    language: String,
    text: String,
}

#[tokio::test]
async fn the_grpcurl_lines_print_what_the_readme_shows() {
    if common::grpcurl().is_some() {
        let gateway = TestGateway::start().await;
        run_section("Every call, with grpcurl", &gateway).await;
    }
}

#[tokio::test]
async fn the_command_line_prints_what_the_readme_shows() {
    run_section("Command line", &TestGateway::start().await).await;
}

#[tokio::test]
async fn the_python_example_prints_what_the_readme_shows() {
    if common::python().is_some() {
        run_section("From Python", &TestGateway::start().await).await;
    }
}

#[tokio::test]
async fn the_python_example_resumes_when_the_gateway_is_killed() {
    let Some(python) = common::python() else {
        return;
    };
    let mut gateway = Server::start(|port, directory| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
        let listen = format!("127.0.0.1:{port}");
        command.args([
            "serve",
            "--http-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            &listen,
        ]);
        command.arg("--data-dir").arg(directory.join("data"));
        command
    });
    let file = gateway.directory().join("long.bin");
    let content = bytes(64 << 20);
    fs::write(&file, &content).unwrap();
    let address = format!("127.0.0.1:{}", gateway.port());
    let mut example = std::process::Command::new(python)
        .arg(repository().join("examples/python/upload.py"))
        .args([file.as_os_str(), address.as_ref()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut committed = BufReader::new(example.stderr.take().unwrap())
        .lines()
        .filter_map(|line| {
            line.unwrap()
                .strip_suffix(" bytes committed")?
                .parse::<u64>()
                .ok()
        });
    let before = committed.by_ref().find(|size| *size > 0).unwrap();
    assert!(before < 64 << 20, "the upload was over before the kill");
    gateway.restart();
    assert_eq!(committed.last(), Some(64 << 20));
    assert!(example.wait().unwrap().success());
    let mut object = String::new();
    example
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut object)
        .unwrap();
    assert!(object.contains(&Md5::of(&content).to_string()), "{object}");

    let client = Client::connect(&format!("http://{address}")).unwrap();
    let uploads = client
        .list(ListUploadsRequest::default())
        .await
        .unwrap()
        .uploads;
    let phases: Vec<Phase> = uploads.iter().map(|upload| upload.phase()).collect();
    assert_eq!(phases, [Phase::Complete], "it was resumed, not begun anew");
}

#[test]
fn every_call_of_the_upload_service_has_a_grpcurl_line() {
    let commands: String = fences(section("Every call, with grpcurl"))
        .into_iter()
        .filter(|fence| fence.language == "sh")
        .map(|fence| fence.text)
        .collect();
    let words: Vec<&str> = commands.split_whitespace().collect();
    for call in calls("UploadService") {
        let call = format!("uploadgateway.v1.UploadService/{call}");
        assert!(
            words.contains(&call.as_str()),
            "the README does not call {call}"
        );
    }
}

#[tokio::test]
async fn reflection_tells_every_service_call_and_type_of_error_details() {
    let Some(grpcurl) = common::grpcurl() else {
        return;
    };
    let gateway = TestGateway::start().await;
    let ask = async |arguments: &[&str]| {
        let mut command = Command::new(&grpcurl);
        command
            .args(["-plaintext", &gateway.grpc["http://".len()..]])
            .args(arguments);
        let output = command.output().await.unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            printed(&output)
        );
        printed(&output)
    };
    let services = ask(&["list"]).await;
    for service in ["UploadService", "SigningService"] {
        let full_name = format!("uploadgateway.v1.{service}");
        assert!(services.contains(&full_name), "{services}");
        let listed = ask(&["list", &full_name]).await;
        let described = ask(&["describe", &full_name]).await;
        for call in calls(service) {
            assert!(
                listed.contains(&format!("{full_name}.{call}\n")),
                "{listed}"
            );
            assert!(described.contains(&format!("rpc {call} ( ")), "{described}");
        }
    }
    assert!(services.contains("grpc.health.v1.Health"), "{services}");
    for detail in ["ErrorInfo", "BadRequest", "RetryInfo"] {
        ask(&["describe", &format!("google.rpc.{detail}")]).await;
    }
}

#[tokio::test]
async fn error_details_print_by_name() {
    let Some(grpcurl) = common::grpcurl() else {
        return;
    };
    let directory = TempDir::new().unwrap();
    let mut config = load(STORE_THAT_IS_AWAY);
    config.data_dir = directory.path().to_owned();
    config.limits.outage_patience_seconds = 1;
    let gateway = TestGateway::over(config).await;
    let refused = async |call: &str, request: &str| {
        let mut command = Command::new(&grpcurl);
        command.args([
            "-plaintext",
            "-d",
            request,
            &gateway.grpc["http://".len()..],
        ]);
        command.arg(format!("uploadgateway.v1.UploadService/{call}"));
        let output = command.output().await.unwrap();
        assert!(!output.status.success(), "{call} was not refused");
        printed(&output)
    };
    let unknown = refused("GetUpload", r#"{"upload_id": "uploads-unknown"}"#).await;
    assert_prints(
        "google.rpc.ErrorInfo\n\"reason\": \"UPLOAD_NOT_FOUND\"",
        &unknown,
    );
    let invalid = refused("ListUploads", r#"{"page_size": -1}"#).await;
    assert_prints("google.rpc.BadRequest\n\"field\": \"page_size\"", &invalid);
    let held = refused(
        "Upload",
        r#"{"open": {"file": {"file_name": "a"}}} {"finish": {}}"#,
    )
    .await;
    assert_prints("google.rpc.RetryInfo\n\"retryDelay\"", &held);
    assert_prints(
        "google.rpc.ErrorInfo\n\"reason\": \"STORE_UNAVAILABLE\"",
        &held,
    );
}

#[test]
fn the_error_table_says_what_the_code_and_the_proto_say() {
    let kinds = [
        (Kind::InvalidArgument, "INVALID_ARGUMENT"),
        (Kind::OutOfRange, "OUT_OF_RANGE"),
        (Kind::NotFound, "NOT_FOUND"),
        (Kind::FailedPrecondition, "FAILED_PRECONDITION"),
        (Kind::Aborted, "ABORTED"),
        (Kind::DataLoss, "DATA_LOSS"),
        (Kind::ResourceExhausted, "RESOURCE_EXHAUSTED"),
        (Kind::Unavailable, "UNAVAILABLE"),
        (Kind::PermissionDenied, "PERMISSION_DENIED"),
        (Kind::Unauthenticated, "UNAUTHENTICATED"),
        (Kind::Unimplemented, "UNIMPLEMENTED"),
        (Kind::Internal, "INTERNAL"),
    ];
    let rows = table("Errors");
    for (kind, code) in kinds {
        let row = rows
            .iter()
            .find(|row| row[0] == code)
            .unwrap_or_else(|| panic!("no {code}"));
        assert_eq!(row[3], status::row(kind).http.to_string(), "{code}");
    }
    let proto = include_str!("../proto/uploadgateway/v1/upload.proto");
    let comment =
        &proto[proto.find("// Errors").unwrap()..proto.find("service UploadService").unwrap()];
    let told = rows
        .iter()
        .map(|row| format!("{} {} ", row[0], row[1]))
        .collect::<String>();
    for name in comment.split(|character: char| !matches!(character, 'A'..='Z' | '_')) {
        assert!(
            name.len() < 2 || told.contains(name),
            "the table does not name {name}"
        );
    }
}

#[test]
fn the_configuration_table_names_the_defaults() {
    let defaults: toml::Value = toml::from_str(&Config::default().to_toml()).unwrap();
    for row in table("Configuration") {
        let key = row[0].trim_matches('`');
        let value = key
            .split('.')
            .try_fold(&defaults, |value, name| value.get(name));
        let value = match value {
            Some(toml::Value::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
            // Every key without a default is in the commented example.
            None => {
                let (_, name) = key.rsplit_once('.').unwrap_or(("", key));
                let example = include_str!("../deploy/config.example.toml");
                assert!(example.contains(&format!("\n#{name} = ")), "no key {key}");
                "none".into()
            }
        };
        assert_eq!(row[1], value, "{key}");
    }
}

#[test]
fn the_example_configuration_is_taken() {
    let mut fences = fences(section("Configuration")).into_iter();
    let config = load(&fences.find(|fence| fence.language == "toml").unwrap().text);
    assert_eq!(config.default_storage().unwrap().id, "media");
}

#[test]
fn every_make_target_of_the_readme_exists() {
    let makefile = include_str!("../Makefile");
    let pieces = README.split(['`', '\n', '$']);
    let targets: Vec<&str> = pieces
        .filter_map(|piece| piece.trim().strip_prefix("make ")?.split(' ').next())
        .collect();
    for target in &targets {
        assert!(
            makefile.contains(&format!("\n{target}:")),
            "no target {target}"
        );
    }
    assert!(
        targets.contains(&"demo") && targets.contains(&"run"),
        "{targets:?}"
    );
}

fn load(toml: &str) -> Config {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("config.toml");
    fs::write(&file, toml).unwrap();
    config::load(Some(&file), [], &Flags::default()).unwrap()
}

/// Runs the section's commands in a directory with `file.bin`, and compares what each block prints.
async fn run_section(heading: &str, gateway: &TestGateway) {
    let address = &gateway.grpc["http://".len()..];
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
                fence.text.replace(ADDRESS, address)
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
fn assert_prints(shown: &str, output: &str) {
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

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The section under the second-level heading.
fn section(heading: &str) -> &'static str {
    let begin = README
        .find(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let section = &README[begin + 1..];
    section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section)
}

fn fences(text: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```");
            fences.push(Fence {
                language: language.to_owned(),
                text: text.map(|line| format!("{line}\n")).collect(),
            });
        }
    }
    fences
}

/// The cells of the section's first table, without its head. An empty first cell repeats the one above.
fn table(heading: &str) -> Vec<Vec<String>> {
    let rows = section(heading)
        .lines()
        .skip_while(|line| !line.starts_with('|'));
    let mut rows: Vec<Vec<String>> = rows
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    for index in 1..rows.len() {
        if rows[index][0].is_empty() {
            rows[index][0] = rows[index - 1][0].clone();
        }
    }
    rows
}

/// The names of a service's calls.
fn calls(service: &str) -> Vec<String> {
    let descriptors = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = descriptors.file.into_iter().flat_map(|file| file.service);
    let service = services
        .into_iter()
        .find(|found| found.name() == service)
        .unwrap();
    service
        .method
        .iter()
        .map(|method| method.name().to_owned())
        .collect()
}

/// Where the README's programs are found: this build's binary, and what the tests have installed.
fn path() -> std::ffi::OsString {
    let binary = Path::new(env!("CARGO_BIN_EXE_upload-gateway"))
        .parent()
        .unwrap();
    let tools = repository().join(".tools");
    let mut directories = vec![binary.to_owned(), tools.join("venv/bin"), tools.join("bin")];
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(directories).unwrap()
}

fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn printed(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(all).unwrap()
}
