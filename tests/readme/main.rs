//! The README is true: its commands run against a real gateway and print what it shows, and its tables say what the
//! code says.
//!
//! Fences marked `sh` are run, section by section, each section in one shell; the `json` or `text` after one is what it
//! prints, with `…` for anything. Fences marked `console` are for people.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

#[path = "../common/lib.rs"]
mod common;

mod page;
mod run;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use common::{Server, TestGateway, bytes};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tempfile::TempDir;
use tokio::process::Command;
use upload_gateway::{
    client::Client,
    config::{self, Config, Flags, S3Profile, StorageConfig},
    error::Kind,
    faults::Plan,
    proto::{FILE_DESCRIPTOR_SET, v1::ErrorReason, v1::ListUploadsRequest, v1::Phase},
    status,
    upload::Md5,
};

use self::{
    page::{README, fences, section, table},
    run::{assert_prints, printed, repository, run_section},
};

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

#[tokio::test]
async fn the_grpcurl_lines_print_what_the_readme_shows() {
    if common::grpcurl().is_some() {
        let gateway = TestGateway::start().await;
        run_section("Every call, with grpcurl", &gateway).await;
    }
}

#[tokio::test]
async fn the_signing_lines_print_what_the_readme_shows_on_every_store() {
    let (Some(_), Some(redis)) = (common::grpcurl(), common::redis().await) else {
        return;
    };
    let (Some(s3), Some(azure)) = (common::s3().await, common::azure().await) else {
        return;
    };
    let over = async |storage: StorageConfig| {
        TestGateway::over(Config {
            redis_url: Some(redis.url.parse().unwrap()),
            storage: vec![storage],
            ..Config::default()
        })
        .await
    };
    for gateway in [
        TestGateway::start().await,
        over(s3.storage(S3Profile::Compatible)).await,
        over(azure.storage()).await,
    ] {
        run_section("Straight to the store, with grpcurl", &gateway).await;
        run_section("Straight to the store, with curl", &gateway).await;
    }
}

#[tokio::test]
async fn the_command_line_prints_what_the_readme_shows() {
    run_section("Command line", &TestGateway::start().await).await;
}

#[tokio::test]
async fn the_fault_line_prints_what_the_readme_shows() {
    if common::grpcurl().is_none() {
        return;
    }
    let gateway = TestGateway::with(|config| {
        config.faults.enabled = true;
        config.faults.allow_in_this_environment = true;
    });
    run_section("Testing against faults", &gateway.await).await;
    for row in table("Testing against faults") {
        for fault in row[0].split(", ") {
            let fault = fault.trim_matches('`');
            let plan = Plan::parse(fault);
            assert!(plan.is_ok(), "{fault} is not understood");
        }
    }
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
fn every_call_has_a_grpcurl_line() {
    let commands = |heading| -> String {
        let fences = fences(section(heading)).into_iter();
        let shell = fences.filter(|fence| fence.language == "sh");
        shell.map(|fence| fence.text).collect()
    };
    let streaming = commands("Every call, with grpcurl");
    let signing = commands("Straight to the store, with grpcurl");
    let words: Vec<&str> = streaming.split_whitespace().collect();
    for call in calls("UploadService") {
        let call = format!("uploadgateway.v1.UploadService/{call}");
        assert!(words.contains(&call.as_str()), "no line calls {call}");
    }
    for call in calls("SigningService") {
        assert!(
            signing.contains(&format!("sign {call}")),
            "no line calls {call}"
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
    let in_table: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| row[1].split(|character: char| !matches!(character, 'A'..='Z' | '_')))
        .filter(|name| !name.is_empty())
        .collect();
    let in_proto = (1..).map_while(|number| ErrorReason::try_from(number).ok());
    let in_proto: BTreeSet<&str> = in_proto
        .map(|reason| reason.as_str_name().trim_start_matches("ERROR_REASON_"))
        .collect();
    assert_eq!(in_table, in_proto);
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
                let example = include_str!("../../deploy/config.example.toml");
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
    let makefile = include_str!("../../Makefile");
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
