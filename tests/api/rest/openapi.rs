//! The OpenAPI document is valid and describes what the gateway answers.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use reqwest::{
    RequestBuilder,
    header::{HOST, IF_NONE_MATCH, ORIGIN},
};
use serde_json::{Value, json};
use upload_gateway::config::{Config, PartDataForm};
use upload_gateway_core::upload::Md5;

use super::{
    client::{Http, UNKNOWN, answer, file, part_of, text},
    common::{TestGateway, bytes, python},
};

/// Makes calls and records the answers.
struct Recorder {
    http: Http,
    exchanges: Vec<Value>,
}

// === impl Recorder ===

impl Recorder {
    async fn call(&mut self, method: &str, path: &str, body: Value) -> Value {
        self.send(method, path, body.to_string(), "").await
    }

    async fn send(&mut self, method: &str, path: &str, body: String, range: &str) -> Value {
        let mut request = self.http.request(method, path).body(body);
        if !range.is_empty() {
            request = request.header("Range", range);
        }
        self.record(method, path, request).await
    }

    async fn record(&mut self, method: &str, path: &str, request: RequestBuilder) -> Value {
        let answer = answer(request).await;
        let names = answer.headers.keys().map(ToString::to_string);
        self.exchanges.push(json!({
            "method": method,
            "path": path.split('?').next(),
            "status": answer.status,
            "headers": names.collect::<Vec<_>>(),
            "content_type": answer.header("content-type"),
            "body": String::from_utf8_lossy(&answer.body),
        }));
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }
}

/// The residence and creation of a file, and the complete upload of a small one.
async fn small_file(recorder: &mut Recorder) {
    for path in [
        "/new?file_name=a&file_size=1",
        "/new",
        "/new?file_name=a&file_size=1&storage_id=x",
        "/new?file_name=a&file_size=9999999999999999",
        "/openapi.json",
        "?limit=1",
    ] {
        recorder.call("GET", path, json!({})).await;
    }
    recorder.call("POST", "", json!({})).await;
    recorder
        .call("POST", "?storage_id=x", file("a.bin", b"abc"))
        .await;
    recorder.send("POST", "", " ".repeat(3 << 20), "").await;

    let step = recorder.call("POST", "", file("a.bin", b"abc")).await;
    let path = format!("/{}", text(&step["upload_id"]));
    recorder.call("PUT", &path, json!({})).await;
    for call in ["url", "download"] {
        recorder
            .call("GET", &format!("{path}/{call}"), json!({}))
            .await;
    }
    recorder.http.deliver(&step, b"abc".to_vec()).await;
    recorder.call("PUT", &path, json!({})).await;
    recorder
        .call("GET", &format!("{path}/url"), json!({}))
        .await;
    recorder
        .call("GET", &format!("{path}/url?expiry=x"), json!({}))
        .await;
    for range in ["", "bytes=1-1", "bytes=9-"] {
        let download = format!("{path}/download");
        recorder.send("GET", &download, String::new(), range).await;
    }
    let download = format!("{path}/download");
    let known = recorder.http.request("GET", &download);
    let known = known.header(IF_NONE_MATCH, "*");
    recorder.record("GET", &download, known).await;
    recorder.call("DELETE", &path, json!({})).await;
    recorder.call("GET", "?limit=1", json!({})).await;
    recorder.call("GET", "?limit=0", json!({})).await;
}

/// A file in parts, found again and aborted.
async fn file_in_parts(recorder: &mut Recorder) {
    let sent = bytes(6 << 20);
    let part = |number| Md5::of(part_of(&sent, number)).to_string();
    let step = recorder.call("POST", "", file("film.mp4", &sent)).await;
    let path = format!("/{}", text(&step["upload_id"]));
    let session = recorder.http.begin(&step).await;
    let first = json!({"resumable_id": session, "part": 1, "file_id": part(1)});
    let step = recorder.call("PATCH", &path, first).await;
    recorder
        .http
        .deliver(&step, part_of(&sent, 1).to_vec())
        .await;
    let found = recorder.call("POST", "", file("film.mp4", &sent)).await;
    assert_eq!(found["type"], "parts");
    for body in [
        json!({"part_update": true}),
        json!({"part": 1}),
        json!(null),
    ] {
        recorder.call("PATCH", &path, body).await;
    }
    recorder.send("PATCH", &path, " ".repeat(3 << 20), "").await;
    let edit = format!("{path}/edit");
    recorder
        .call("GET", &format!("{edit}?part=finish"), json!({}))
        .await;
    recorder.call("GET", &edit, json!({})).await;
    let second = format!("{edit}?part=2&file_id={}", part(2));
    let step = recorder.call("GET", &second, json!({})).await;
    recorder
        .http
        .deliver(&step, part_of(&sent, 2).to_vec())
        .await;
    recorder.call("PATCH", &path, json!({})).await;
    recorder
        .call("GET", &format!("{edit}?part=finish"), json!({}))
        .await;
    recorder.call("DELETE", &path, json!({})).await;
}

async fn unknown_upload(recorder: &mut Recorder) {
    for (method, call) in [
        ("PATCH", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("GET", "/edit?part=finish"),
        ("GET", "/url"),
        ("GET", "/download"),
    ] {
        let path = format!("/{UNKNOWN}{call}");
        recorder.call(method, &path, json!({})).await;
    }
}

/// Calls for another host, and calls that a page of another origin sends.
async fn foreign_pages(recorder: &mut Recorder) {
    let one = format!("/{UNKNOWN}");
    for (method, path, changes) in [
        ("GET", String::new(), false),
        ("POST", String::new(), true),
        ("GET", "/new".into(), false),
        ("PATCH", one.clone(), true),
        ("PUT", one.clone(), true),
        ("DELETE", one.clone(), true),
        ("GET", format!("{one}/edit"), true),
        ("GET", format!("{one}/url"), false),
        ("GET", format!("{one}/download"), false),
    ] {
        let rebound = recorder.http.request(method, &path);
        let rebound = rebound.header(HOST, "evil.example");
        recorder.record(method, &path, rebound).await;
        if changes {
            let sent = recorder.http.request(method, &path);
            let sent = sent.header(ORIGIN, "https://evil.example");
            recorder.record(method, &path, sent).await;
        }
    }
}

#[tokio::test]
async fn the_document_is_valid_and_describes_the_real_answers() {
    let Some(python) = python() else { return };
    let gateway = TestGateway::start().await;
    let mut recorder = Recorder {
        http: Http::of(&gateway),
        exchanges: Vec::new(),
    };
    small_file(&mut recorder).await;
    file_in_parts(&mut recorder).await;
    unknown_upload(&mut recorder).await;
    foreign_pages(&mut recorder).await;
    let as_map = |config: &mut Config| config.rest.part_data = PartDataForm::Map;
    let other = TestGateway::with(as_map).await;
    recorder.http = Http::of(&other);
    file_in_parts(&mut recorder).await;
    let document = recorder.http.get("/openapi.json").await.json();
    let input = json!({"document": document, "exchanges": recorder.exchanges});

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/rest/openapi.py");
    let mut checker = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = checker.stdin.take().unwrap();
    pipe.write_all(input.to_string().as_bytes()).unwrap();
    drop(pipe);
    let checked = checker.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
}
