//! Every call of the services has a command and a row, and reflection describes it.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use upload_gateway::proto::FILE_DESCRIPTOR_SET;

use super::{
    common::{self, TestGateway},
    load,
    page::{Page, code, fences},
    run::{assert_prints, printed},
};

/// A storage whose endpoint nothing listens on.
const UNREACHABLE_STORE: &str = r#"
[[storage]]
id = "unreachable"
kind = "s3"
bucket = "unreachable"
endpoint = "http://127.0.0.1:1"
access_key_id = "id"
secret_access_key = "secret"
"#;

#[test]
fn every_call_has_a_grpcurl_line() {
    let commands = |page: &str, heading| -> String {
        let page = Page::read(page);
        let fences = fences(page.section(heading)).into_iter();
        let shell = fences.filter(|fence| fence.language == "sh");
        shell.map(|fence| fence.text).collect()
    };
    let streaming = commands("docs/grpc.md", "Try every call")
        + &commands("docs/limits.md", "What GetLimits returns");
    let signing = commands("docs/direct-uploads.md", "With grpcurl");
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

#[test]
fn every_call_has_a_row() {
    let rows = Page::read("docs/grpc.md").table(&["call"]);
    let rows: Vec<_> = rows.iter().filter_map(|row| code(&row[0])).collect();
    assert_eq!(sorted(rows), sorted(calls("UploadService")));
    let rows = Page::read("docs/direct-uploads.md").table(&["step", "gRPC"]);
    let rows = rows.iter().filter_map(|row| code(&row[1]));
    let rows: Vec<_> = rows.filter(|call| !call.contains('/')).collect();
    assert_eq!(sorted(rows), sorted(calls("SigningService")));
    let rows = Page::read("docs/operations.md").table(&["call of `AdminService`"]);
    let rows: Vec<_> = rows.iter().filter_map(|row| code(&row[0])).collect();
    assert_eq!(sorted(rows), sorted(calls("AdminService")));
}

#[tokio::test]
async fn every_path_of_the_http_api_has_a_row() {
    let gateway = TestGateway::start().await;
    let base = "/api/engine/v2/uploads";
    let url = format!("{}{base}/openapi.json", gateway.http);
    let document = reqwest::get(url).await.unwrap().text().await.unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut served = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = match path.strip_prefix(base).unwrap() {
                "" => "/",
                path => path,
            };
            served.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    served.retain(|path| !path.ends_with("/openapi.json"));
    let rows = Page::read("docs/direct-uploads.md").table(&["step", "gRPC"]);
    let mut rows: Vec<_> = rows.iter().filter_map(|row| code(&row[2])).collect();
    rows.sort_unstable();
    // A part and the commit are signed at one path.
    rows.dedup();
    assert_eq!(sorted(rows), sorted(served));
}

#[tokio::test]
async fn reflection_describes_every_service_call_and_type_of_error_details() {
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
    let mut config = load(UNREACHABLE_STORE);
    config.data_dir = directory.path().to_owned();
    config.limits.store_retry_timeout_seconds = 1;
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

fn sorted<T: ToString>(all: Vec<T>) -> Vec<String> {
    let mut all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.sort();
    all
}
