//! The listener for operations, and what it measures.

use std::collections::BTreeSet;

use reqwest::{Client, Method, StatusCode};
use tokio_stream::StreamExt;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Endpoint};
use upload_gateway_client::{
    RetryPolicy, Source,
    proto::v1::{
        FileMetadata, GetUploadRequest, ListUploadsRequest, Open, Upload, UploadRequest, open,
        upload_request::Message, upload_service_client::UploadServiceClient,
    },
};

use crate::common::{self, Server, gateway_process};

/// How many methods and paths are made up.
const MADE_UP: usize = 200;

/// What a gateway has measured after some calls, and the least value of each.
const MEASURED: &[(&str, f64)] = &[
    (
        "rpc_server_call_duration_seconds_count{rpc_method=\"uploadgateway.v1.UploadService/ListUploads\",rpc_response_status_code=\"OK\"}",
        1.0,
    ),
    (
        "rpc_server_call_duration_seconds_count{rpc_method=\"uploadgateway.v1.UploadService/GetUpload\",rpc_response_status_code=\"INVALID_ARGUMENT\"}",
        1.0,
    ),
    (
        "rpc_server_call_duration_seconds_count{rpc_method=\"_OTHER\",rpc_response_status_code=\"UNIMPLEMENTED\"}",
        1.0,
    ),
    (
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_route=\"/api/engine/v2/uploads/{id}/download\",http_response_status_code=\"200\",error_type=\"\"}",
        1.0,
    ),
    (
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_route=\"_OTHER\",http_response_status_code=\"404\",error_type=\"\"}",
        1.0,
    ),
    (
        "upload_gateway_state_call_duration_seconds_count{call=\"create\"}",
        1.0,
    ),
    (
        "upload_gateway_store_call_duration_seconds_count{storage=\"embedded\",call=\"put_object\"}",
        1.0,
    ),
    (
        "upload_gateway_uploads_total{storage=\"embedded\",transition=\"created\"}",
        1.0,
    ),
    (
        "upload_gateway_uploads_total{storage=\"embedded\",transition=\"complete\"}",
        1.0,
    ),
    (
        "upload_gateway_completed_bytes_total{storage=\"embedded\"}",
        5.0,
    ),
    ("upload_gateway_parts_total{storage=\"embedded\"}", 1.0),
    (
        "upload_gateway_file_bytes_total{storage=\"embedded\",direction=\"in\"}",
        5.0,
    ),
    (
        "upload_gateway_file_bytes_total{storage=\"embedded\",direction=\"out\"}",
        5.0,
    ),
    (
        "upload_gateway_commit_duration_seconds_count{result=\"ok\"}",
        1.0,
    ),
    ("upload_gateway_hash_duration_seconds_count", 1.0),
    (
        "upload_gateway_calls_total{edge=\"grpc\",fault=\"false\"}",
        3.0,
    ),
    (
        "upload_gateway_calls_total{edge=\"http\",fault=\"false\"}",
        3.0,
    ),
    ("upload_gateway_ready", 1.0),
    ("upload_gateway_state_available", 1.0),
    (
        "upload_gateway_storage_available{storage=\"embedded\"}",
        1.0,
    ),
    ("upload_gateway_memory_budget_bytes", 268_435_456.0),
    ("upload_gateway_build_info{version=", 1.0),
];

fn address(server: &Server, listener: &str) -> String {
    let prefix = format!("{listener} listening on ");
    let found = common::poll(|| {
        let log = server.log();
        let mut lines = log.lines();
        let address = lines.find_map(|line| line.strip_prefix(&prefix));
        address.map(ToOwned::to_owned)
    });
    found.unwrap()
}

async fn scrape(operations: &str) -> String {
    let response = reqwest::get(format!("{operations}/metrics")).await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

/// The series of a text, without their values.
fn series(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series)
        .collect()
}

/// The value of the series that begins with this text.
fn value(text: &str, series: &str) -> f64 {
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

async fn rpc(server: &Server, path: &str) {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
    let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<GetUploadRequest, Upload>::default();
    let path = PathAndQuery::try_from(path.to_owned()).unwrap();
    let answer = grpc.unary(Request::new(GetUploadRequest::default()), path, codec);
    assert!(answer.await.is_err());
}

async fn made_up_names_add_no_series(server: &Server, http: &str, operations: &str, before: &str) {
    let made_up = Method::from_bytes(b"MADEUP").unwrap();
    for number in 0..MADE_UP {
        rpc(server, &format!("/made.up.Service{number}/Method{number}")).await;
        let url = format!("{http}/made-up-{number}");
        Client::new()
            .request(made_up.clone(), url)
            .send()
            .await
            .unwrap();
    }
    let after = scrape(operations).await;
    let (before, after) = (series(before), series(&after));
    let new: Vec<_> = after.difference(&before).collect();
    // The fallback for unknown paths with an unknown method, each bucket.
    assert!(new.len() < 40, "{new:?}");
}

#[tokio::test]
async fn calls_and_stores_are_measured_with_bounded_labels() {
    let server = gateway_process("operations_listen = \"127.0.0.1:0\"\n");
    let (operations, http) = (address(&server, "operations"), address(&server, "http"));
    let client =
        upload_gateway_client::Client::connect(&format!("http://{}", server.address())).unwrap();
    let source = Source::seekable(std::io::Cursor::new(b"bytes".to_vec()));
    let uploaded = client.upload("a.bin", source).size(5).await;
    let id = uploaded.unwrap().upload.upload_id;
    client.list(ListUploadsRequest::default()).await.unwrap();
    let uploads = format!("{http}/api/engine/v2/uploads");
    for path in ["", "/unknown", &format!("/{id}/download")] {
        reqwest::get(format!("{uploads}{path}"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
    }
    rpc(&server, "/uploadgateway.v1.UploadService/GetUpload").await;
    rpc(&server, "/made.up.Service/Method").await;
    reqwest::get(format!("{http}/made-up")).await.unwrap();
    let made_up = Method::from_bytes(b"MADEUP").unwrap();
    Client::new()
        .request(made_up.clone(), &uploads)
        .send()
        .await
        .unwrap();
    let before = scrape(&operations).await;
    for (series, least) in MEASURED {
        assert!(value(&before, series) >= *least, "{series}");
    }
    for series in [
        "upload_gateway_saturation",
        "upload_gateway_calls_total{edge=\"grpc\",fault=\"true\"}",
        "upload_gateway_calls_total{edge=\"http\",fault=\"true\"}",
        "upload_gateway_takeovers_total",
    ] {
        assert!(value(&before, series).abs() < 1e-9, "{series}");
    }
    // The bound for ten storages, after every call, is in the unit tests of the metrics.
    assert!(series(&before).len() < 1_000, "{before}");
    made_up_names_add_no_series(&server, &http, &operations, &before).await;
}

#[tokio::test]
async fn the_listener_for_operations_changes_nothing() {
    let server = gateway_process("operations_listen = \"127.0.0.1:0\"\n");
    let operations = address(&server, "operations");
    for path in ["metrics", "limits", "healthz", "readyz"] {
        let url = format!("{operations}/{path}");
        assert_eq!(
            reqwest::get(&url).await.unwrap().status(),
            StatusCode::OK,
            "{path}"
        );
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let refused = Client::new().request(method, &url).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
    let uploads = reqwest::get(format!("{operations}/api/engine/v2/uploads"))
        .await
        .unwrap();
    assert_eq!(uploads.status(), StatusCode::NOT_FOUND);
    let limits = reqwest::get(format!("{operations}/limits")).await.unwrap();
    let limits: serde_json::Value = serde_json::from_str(&limits.text().await.unwrap()).unwrap();
    assert_eq!(limits["memory_budget"], "256MiB");
}

#[tokio::test]
async fn an_unavailable_store_makes_faults_and_retries() {
    let server = gateway_process(
        r#"
operations_listen = "127.0.0.1:0"
[limits]
store_retry_timeout_seconds = 1
[[storage]]
id = "media"
kind = "s3"
profile = "compatible"
bucket = "media"
region = "us-east-1"
endpoint = "http://127.0.0.1:1"
access_key_id = "key"
secret_access_key = "secret"
"#,
    );
    let operations = address(&server, "operations");
    let client =
        upload_gateway_client::Client::connect(&format!("http://{}", server.address())).unwrap();
    let source = Source::seekable(std::io::Cursor::new(b"bytes".to_vec()));
    let upload = client.upload("a.bin", source).size(5);
    assert!(upload.retry(RetryPolicy::never()).await.is_err());
    let text = scrape(&operations).await;
    let put = "storage=\"media\",call=\"put_object\"";
    for series in [
        "upload_gateway_calls_total{edge=\"grpc\",fault=\"true\"}".to_owned(),
        "upload_gateway_store_retries_total{storage=\"media\",cause=\"unavailable\"}".to_owned(),
        format!("upload_gateway_store_failures_total{{{put},error_type=\"unavailable\"}}"),
        format!("upload_gateway_store_call_duration_seconds_count{{{put}}}"),
    ] {
        assert!(value(&text, &series) >= 1.0, "{series}");
    }
    let available = "upload_gateway_storage_available{storage=\"media\"}";
    assert!(value(&text, available).abs() < 1e-9);
}

/// Opens an upload, and leaves it. Returns its id.
async fn open(server: &Server, target: open::Target) -> String {
    let mut uploads = UploadServiceClient::connect(format!("http://{}", server.address()))
        .await
        .unwrap();
    let opening = UploadRequest {
        message: Some(Message::Open(Open {
            target: Some(target),
            ..Open::default()
        })),
    };
    let messages = tokio_stream::once(opening).chain(tokio_stream::pending());
    let mut progress = uploads.upload_with_progress(messages).await.unwrap();
    let first = progress.get_mut().message().await.unwrap().unwrap();
    first.upload_id
}

#[tokio::test]
async fn a_resumed_upload_is_a_takeover_and_tenants_have_labels_if_configured() {
    let server =
        gateway_process("operations_listen = \"127.0.0.1:0\"\n[metrics]\ntenants = [\"*\"]\n");
    let operations = address(&server, "operations");
    let file = FileMetadata {
        file_name: "a.bin".into(),
        ..FileMetadata::default()
    };
    let id = open(&server, open::Target::File(file)).await;
    let first = scrape(&operations).await;
    assert!(value(&first, "upload_gateway_takeovers_total").abs() < 1e-9);
    assert_eq!(open(&server, open::Target::UploadId(id.clone())).await, id);
    let second = scrape(&operations).await;
    assert!((value(&second, "upload_gateway_takeovers_total") - 1.0).abs() < 1e-9);
    // Without authentication all callers are of one tenant without a name.
    let created = "upload_gateway_tenant_uploads_total{tenant=\"\",transition=\"created\"}";
    assert!((value(&second, created) - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn the_ends_of_certificates_are_measured() {
    let directory = tempfile::tempdir().unwrap();
    common::write_certificates(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, authority) = (path("server.pem"), path("authority.pem"));
    let server = gateway_process(&format!(
        "operations_listen = \"127.0.0.1:0\"\n[tls]\ncert_file = {certificate:?}\nkey_file = {:?}\n\
         client_auth = \"optional\"\nclient_ca_file = {authority:?}\n",
        path("server.key")
    ));
    let text = scrape(&address(&server, "operations")).await;
    for file in [certificate, authority] {
        let label = format!("{{file=\"{file}\"}}");
        let expiry = format!("upload_gateway_certificate_expiry_timestamp_seconds{label}");
        let lifetime = format!("upload_gateway_certificate_lifetime_seconds{label}");
        // The defaults of rcgen: from 1975 to 4096.
        let years = |seconds: f64| (seconds / (365.2425 * 24.0 * 3600.0)).round();
        assert!(
            (years(value(&text, &expiry)) - 2126.0).abs() < 1.1,
            "{file}"
        );
        assert!(
            (years(value(&text, &lifetime)) - 2121.0).abs() < 1.1,
            "{file}"
        );
    }
}
