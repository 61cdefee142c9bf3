//! The listener for operations, and what it measures.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Client, Method, StatusCode};
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Endpoint};
use upload_gateway_client::{
    Source, Target, UploadOptions,
    proto::v1::{GetUploadRequest, ListUploadsRequest, Upload},
};

use crate::common::{self, Server, gateway_process};

/// How many methods and paths are made up.
const MADE_UP: usize = 200;

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
    let options = UploadOptions::default();
    let uploaded = client.upload(source, Target::file("a.bin", 5), &options, |_| ());
    let id = uploaded.await.unwrap().upload.upload_id;
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
    for (series, least) in [
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
            "upload_gateway_state_call_duration_seconds_count{call=\"create\",result=\"ok\"}",
            1.0,
        ),
        (
            "upload_gateway_store_call_duration_seconds_count{storage=\"embedded\",call=\"put_object\",result=\"ok\"}",
            1.0,
        ),
        ("upload_gateway_ready", 1.0),
        ("upload_gateway_state_available", 1.0),
        (
            "upload_gateway_storage_available{storage=\"embedded\"}",
            1.0,
        ),
        ("upload_gateway_memory_budget_bytes", f64::from(256 << 20)),
        ("upload_gateway_build_info{version=", 1.0),
    ] {
        assert!(value(&before, series) >= least, "{series}");
    }
    assert!(value(&before, "upload_gateway_saturation").abs() < 1e-9);
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
async fn the_page_of_metrics_has_all_of_them_with_types_and_labels() {
    let server = gateway_process("operations_listen = \"127.0.0.1:0\"\n");
    let (operations, http) = (address(&server, "operations"), address(&server, "http"));
    rpc(&server, "/uploadgateway.v1.UploadService/GetUpload").await;
    reqwest::get(format!("{http}/api/engine/v2/uploads"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let text = scrape(&operations).await;
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: BTreeMap<&str, &str> = types.collect();
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (name, kind, labels) = (cells[1].trim_matches('`'), cells[2], cells[3]);
        documented.insert(name, kind);
        let labels: BTreeSet<&str> = labels
            .split(", ")
            .map(|label| label.trim_matches('`'))
            .filter(|label| !label.is_empty())
            .collect();
        let suffix = match kind {
            "histogram" => "_count",
            "info" => "_info",
            _ => "",
        };
        let begin = format!("{name}{suffix}");
        let series = text.lines().find(|line| line.starts_with(&begin));
        let series = series.unwrap_or_else(|| panic!("no {begin}"));
        let found = series
            .split_once('{')
            .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let found: BTreeSet<&str> = found
            .split("\",")
            .filter_map(|label| Some(label.split_once('=')?.0))
            .collect();
        assert_eq!(found, labels, "{name}");
    }
    assert_eq!(documented, types);
}
