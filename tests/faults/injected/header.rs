//! The header `x-upload-gateway-fault`: what it does, what is refused, and that it does nothing unless configured.

use std::process::{Command, Output};

use reqwest::StatusCode;
use serde_json::Value;
use tonic::Code;
use tonic_types::StatusExt;
use upload_gateway::config::Faults;
use upload_gateway_core::upload::PART_SIZE;

use super::{
    common::{Server, TestGateway, bytes, open, reason},
    stores::{begin, converse, resume},
};

/// A header that nobody understands.
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
async fn a_stream_is_cut_after_so_many_bytes_and_the_upload_goes_on() {
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
    let told = status.get_details_error_info().unwrap().metadata;
    assert_eq!(told["committed_size"], part.to_string());
    assert_eq!(told["upload_id"], opened.upload_id);
    let upload = resume(&gateway.grpc, "", &opened.upload_id, &data).await;
    assert!(gateway.read(&upload.unwrap()).await == data);
}

#[tokio::test]
async fn a_fault_strikes_the_call_that_asks_for_it_alone() {
    let gateway = TestGateway::with(|config| {
        config.faults.enabled = true;
        config.faults.allow_in_this_environment = true;
        config.limits.store_retry_timeout_seconds = 1;
    })
    .await;
    let fault = "state.list:times=1000:fail-before, state.count:times=1000:fail-before";
    let (struck, other) = tokio::join!(list(&gateway, fault), list(&gateway, ""));
    assert_eq!(struck.0, StatusCode::SERVICE_UNAVAILABLE, "{}", struck.1);
    assert!(struck.1.contains("STATE_UNAVAILABLE"), "{}", struck.1);
    assert_eq!(other.0, StatusCode::OK);
}

#[tokio::test]
async fn a_header_that_is_not_understood_is_refused_by_its_name() {
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

fn serve(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
    command.arg("serve").env_clear();
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn they_are_enabled_by_two_keys_only() {
    let refused = serve(&[("UPLOAD_GATEWAY_FAULTS__ENABLED", "true")]);
    assert_eq!(refused.status.code(), Some(64));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("faults.enabled"), "{told}");
    assert!(told.contains("faults.allow_in_this_environment"), "{told}");
}

#[test]
fn a_gateway_says_loudly_that_they_are_enabled() {
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
