//! The OpenAPI document is valid, and says what the gateway answers.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    client::{Http, UNKNOWN, answer, file, part_of, text},
    common::{TestGateway, bytes, python},
};
use upload_gateway::upload::Md5;

/// Calls, and keeps what was answered.
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

/// Every call, answered well and badly.
async fn every_call(recorder: &mut Recorder) {
    let sent = bytes(6 << 20);
    let part = |number| Md5::of(part_of(&sent, number)).to_string();
    recorder
        .call("GET", "/new?file_name=a&file_size=1", json!({}))
        .await;
    recorder.call("GET", "/new", json!({})).await;
    recorder
        .call(
            "GET",
            "/new?file_name=a&file_size=1&storage_id=x",
            json!({}),
        )
        .await;
    recorder
        .call(
            "GET",
            "/new?file_name=a&file_size=9999999999999999",
            json!({}),
        )
        .await;
    recorder.call("GET", "/openapi.json", json!({})).await;
    recorder.call("POST", "", json!({})).await;
    recorder
        .call("POST", "?storage_id=x", file("a.bin", b"abc"))
        .await;
    recorder.send("POST", "", " ".repeat(3 << 20), "").await;

    let small = recorder.call("POST", "", file("a.bin", b"abc")).await;
    let small_path = format!("/{}", text(&small["upload_id"]));
    recorder.call("PUT", &small_path, json!({})).await;
    for call in ["url", "download"] {
        recorder
            .call("GET", &format!("{small_path}/{call}"), json!({}))
            .await;
    }
    recorder.http.deliver(&small, b"abc".to_vec()).await;
    recorder.call("PUT", &small_path, json!({})).await;
    recorder.call("DELETE", &small_path, json!({})).await;

    let step = recorder.call("POST", "", file("film.mp4", &sent)).await;
    let path = format!("/{}", text(&step["upload_id"]));
    let session = recorder.http.begin(&step).await;
    let first = json!({"resumable_id": session, "part": 1, "file_id": part(1)});
    let step = recorder.call("PATCH", &path, first).await;
    recorder
        .http
        .deliver(&step, part_of(&sent, 1).to_vec())
        .await;
    recorder.call("POST", "", file("film.mp4", &sent)).await;
    recorder
        .call("PATCH", &path, json!({"part_update": true}))
        .await;
    recorder.call("PATCH", &path, json!({"part": 1})).await;
    recorder.call("PATCH", &path, json!({})).await;
    recorder.send("PATCH", &path, " ".repeat(3 << 20), "").await;
    recorder
        .call("GET", &format!("{path}/edit?part=finish"), json!({}))
        .await;
    recorder
        .call("GET", &format!("{path}/edit"), json!({}))
        .await;
    let second = format!("{path}/edit?part=2&file_id={}", part(2));
    let step = recorder.call("GET", &second, json!({})).await;
    recorder
        .http
        .deliver(&step, part_of(&sent, 2).to_vec())
        .await;
    recorder.call("PATCH", &path, json!({})).await;
    recorder
        .call("GET", &format!("{path}/edit?part=finish"), json!({}))
        .await;
    recorder.call("GET", "?limit=1", json!({})).await;
    recorder.call("GET", "?limit=0", json!({})).await;
    recorder.call("DELETE", &path, json!({})).await;

    recorder
        .call("GET", &format!("{small_path}/url"), json!({}))
        .await;
    recorder
        .call("GET", &format!("{small_path}/url?expiry=x"), json!({}))
        .await;
    let download = format!("{small_path}/download");
    for range in ["", "bytes=1-1", "bytes=9-"] {
        recorder.send("GET", &download, String::new(), range).await;
    }
    for (method, call) in [
        ("PATCH", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("GET", "/edit?part=finish"),
        ("GET", "/url"),
        ("GET", "/download"),
    ] {
        recorder
            .call(method, &format!("/{UNKNOWN}{call}"), json!({}))
            .await;
    }
}

#[tokio::test]
async fn the_document_is_valid_and_says_what_is_answered() {
    let Some(python) = python() else { return };
    let gateway = TestGateway::start().await;
    let mut recorder = Recorder {
        http: Http::of(&gateway),
        exchanges: Vec::new(),
    };
    every_call(&mut recorder).await;
    let document = recorder.http.get("/openapi.json").await.json();
    let input = json!({"document": document, "exchanges": recorder.exchanges});

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rest/openapi.py");
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
