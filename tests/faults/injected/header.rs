//! The header `x-upload-gateway-fault`: what it does, what is refused, and that it does nothing unless enabled.

use std::process::{Command, Output};

use reqwest::StatusCode;
use serde_json::Value;
use tonic::{Code, Request};
use tonic_types::StatusExt;
use upload_gateway::config::Faults;
use upload_gateway_client::proto::v1::ListPartsRequest;
use upload_gateway_core::upload::PART_SIZE;

use super::{
    common::{Server, TestGateway, bytes, open, reason},
    stores::{begin, converse, resume},
};

/// An invalid header.
const NONSENSE: &str = "state.forget:fail-before";

const UPLOADS: &str = "/api/engine/v2/uploads";

async fn faulty() -> TestGateway {
    TestGateway::with(|config| {
        config.faults = Faults {
            enabled: true,
            allow_in_this_environment: true,
        };
    })
    .await
}

async fn list(gateway: &TestGateway, fault: &str) -> (StatusCode, String) {
    let request = reqwest::Client::new().get(format!("{}{UPLOADS}", gateway.http));
    let request = request.header("x-upload-gateway-fault", fault);
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_stream_is_cut_after_the_given_bytes_and_the_upload_resumes() {
    let gateway = faulty().await;
    let part = usize::try_from(PART_SIZE).unwrap();
    let data = bytes(2 * part + 1000);
    let cut = format!("stream:cut-after={}", part + 100);
    let (stream, opened) = begin(&gateway.grpc, &cut, &data).await.unwrap();
    stream.send_in_chunks(0, &data, 1 << 20).await;
    let status = stream.end().await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::Unavailable, "INJECTED_FAULT".into())
    );
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["committed_size"], part.to_string());
    assert_eq!(metadata["upload_id"], opened.upload_id);
    let upload = resume(&gateway.grpc, "", &opened.upload_id, &data).await;
    assert!(gateway.read(&upload.unwrap()).await == data);
}

#[tokio::test]
async fn a_fault_affects_only_the_call_that_asks_for_it() {
    let gateway = TestGateway::with(|config| {
        config.faults.enabled = true;
        config.faults.allow_in_this_environment = true;
        config.limits.store_retry_timeout_seconds = 1;
    })
    .await;
    let fault = "state.list:times=1000:fail-before, state.count:times=1000:fail-before";
    let (failed, other) = tokio::join!(list(&gateway, fault), list(&gateway, ""));
    assert_eq!(failed.0, StatusCode::SERVICE_UNAVAILABLE, "{}", failed.1);
    assert!(failed.1.contains("STATE_UNAVAILABLE"), "{}", failed.1);
    assert_eq!(other.0, StatusCode::OK);
}

#[tokio::test]
async fn an_invalid_header_is_refused_and_named() {
    let gateway = faulty().await;
    let client = gateway.client().await;
    let refused = super::common::Conversation::begin_with(client, Some(NONSENSE)).await;
    let Err(status) = refused else {
        panic!("it is understood");
    };
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "x-upload-gateway-fault");

    let (status, body) = list(&gateway, NONSENSE).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["parameter"], "x-upload-gateway-fault", "{body}");
}

#[tokio::test]
async fn without_configuration_the_header_is_not_read() {
    let gateway = TestGateway::start().await;
    let data = bytes(100);
    for fault in [
        NONSENSE,
        "stream:cut-after=1",
        "process:exit-before=state.create",
    ] {
        let mut stream = converse(&gateway.grpc, fault).await;
        stream.send(open("a.bin", Some(data.len()))).await;
        let upload_id = stream.next().await.unwrap().upload_id;
        let upload = resume(&gateway.grpc, fault, &upload_id, &data).await;
        assert!(gateway.read(&upload.unwrap()).await == data);
        assert_eq!(list(&gateway, fault).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_call_waits_for_unavailable_stores_once_however_many_requests_it_makes() {
    let gateway = TestGateway::with(|config| {
        config.limits.store_retry_timeout_seconds = 1;
        config.faults = Faults {
            enabled: true,
            allow_in_this_environment: true,
        };
    })
    .await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    let part = usize::try_from(PART_SIZE).unwrap();
    stream.send_in_chunks(0, &bytes(part), 1 << 20).await;
    stream.committed(part).await;
    let client = gateway.client().await;
    // Reads the record, and then its parts.
    let list_parts = async |fault: &str| {
        let mut request = Request::new(ListPartsRequest {
            upload_id: upload_id.clone(),
            ..ListPartsRequest::default()
        });
        let metadata = request.metadata_mut();
        metadata.insert("x-upload-gateway-fault", fault.parse().unwrap());
        let listed = client.clone().list_parts(request).await;
        listed.map_err(|status| status.code())
    };
    let fails_once = |call: &str| format!("{call}:times=2:delay=300ms,{call}:fail-before");
    let (record_fails, parts_fail) = (
        fails_once("state.summary"),
        fails_once("state.committed_parts"),
    );
    for fault in [&record_fails, &parts_fail] {
        assert!(list_parts(fault).await.is_ok(), "{fault}");
    }
    let both_fail = format!("{record_fails},{parts_fail}");
    let failed = list_parts(&both_fail).await.unwrap_err();
    assert_eq!(failed, Code::Unavailable);
}

fn serve(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
    command.arg("serve").env_clear();
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn two_keys_are_needed_to_enable_faults() {
    let refused = serve(&[("UPLOAD_GATEWAY_FAULTS__ENABLED", "true")]);
    assert_eq!(refused.status.code(), Some(64));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.contains("faults.enabled"), "{errors}");
    assert!(
        errors.contains("faults.allow_in_this_environment"),
        "{errors}"
    );
}

#[test]
fn a_gateway_logs_that_faults_are_enabled() {
    let server = Server::start(|port, directory| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
        command
            .args(["serve", "--http-listen", "127.0.0.1:0", "--grpc-listen"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--data-dir")
            .arg(directory.join("data"))
            .env("UPLOAD_GATEWAY_FAULTS__ENABLED", "true")
            .env("UPLOAD_GATEWAY_FAULTS__ALLOW_IN_THIS_ENVIRONMENT", "true");
        command
    });
    let said = super::common::poll(|| server.log().contains("FAULTS ARE ENABLED").then_some(()));
    assert!(said.is_some(), "{}", server.log());
}
