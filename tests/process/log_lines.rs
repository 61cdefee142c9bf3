//! Lines of the log: text from callers writes no line of its own, and each upload that ends has one.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use tonic_types::StatusExt;
use upload_gateway_client::proto::v1::{
    DeleteUploadRequest, FileMetadata, GetUploadRequest, upload_service_client::UploadServiceClient,
};

use crate::common::{Conversation, binary, bytes, chunk, finish, open, open_file, open_known};

const FORGED: &str = "2026-01-01T00:00:00.000000Z ERROR forged";

/// A gateway with embedded stores in a process of its own.
struct Gateway {
    process: Child,
    grpc: String,
    http: String,
    _directory: TempDir,
}

// === impl Gateway ===

impl Gateway {
    fn start(variables: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let mut process = binary()
            .args(["serve", "--http-listen", "127.0.0.1:0"])
            .args(["--grpc-listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut lines = String::new();
        while !lines.contains("embedded s3 at ") {
            assert_ne!(output.read_line(&mut lines).unwrap(), 0, "{lines}");
        }
        let address = |name: &str| {
            let begin = format!("{name} listening on http://");
            let line = lines.lines().find_map(|line| line.strip_prefix(&begin));
            line.unwrap().to_owned()
        };
        Self {
            grpc: format!("http://{}", address("grpc")),
            http: address("http"),
            process,
            _directory: directory,
        }
    }

    /// Stops it, and returns what it logged.
    fn stop(mut self) -> String {
        let process = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .arg(process)
                .status()
                .unwrap()
                .success()
        );
        let mut log = String::new();
        let mut errors = self.process.stderr.take().unwrap();
        errors.read_to_string(&mut log).unwrap();
        self.process.wait().unwrap();
        log
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.process.kill();
    }
}

/// The answer to an HTTP request for an upload with such an id.
fn call_http(address: &str) -> String {
    let id = format!("x%0A{}%0D%1B[31m", FORGED.replace(' ', "%20"));
    let request = format!(
        "GET /api/engine/v2/uploads/{id}/url HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    send_http(address, &request)
}

/// The answer to this HTTP request, which closes the connection.
fn send_http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn an_upload_id_with_line_breaks_stays_in_its_line() {
    let filter = ("UPLOAD_GATEWAY_LOG__FILTER", "info,upload_gateway=debug");
    let gateway = Gateway::start(&[filter]);
    let upload_id = format!("x\n{FORGED}\r\u{1b}[31m\u{202e}");
    let grpc = gateway.grpc.clone();
    let mut client = UploadServiceClient::connect(grpc.clone()).await.unwrap();
    let request = GetUploadRequest {
        upload_id: upload_id.clone(),
    };
    let refused = client.get_upload(request).await.unwrap_err();
    assert!(!refused.message().contains(char::is_control), "{refused:?}");
    assert!(refused.message().contains("x\\n2026"), "{refused:?}");
    drop(client);
    let answer = call_http(&gateway.http);
    assert!(answer.contains("x\\\\n2026"), "{answer}");

    let mut status = binary();
    status
        .args(["status", &upload_id])
        .env("UPLOAD_GATEWAY_SERVER", &grpc);
    let shown = String::from_utf8(status.output().unwrap().stderr).unwrap();
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(!shown.trim_end().contains(char::is_control), "{shown:?}");

    let log = gateway.stop();
    assert!(log.matches("forged").count() >= 3, "{log}");
    for line in log.lines() {
        assert!(line.starts_with("20") && !line.starts_with(FORGED), "{log}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

/// The fields of the lines of uploads that ended.
fn ended(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].clone())
        .filter(|fields| fields["message"] == "an upload ended")
        .collect()
}

/// The name, the size, the attempts and the result of an upload that ended.
fn shown(fields: &Value) -> (&str, u64, u64, &str) {
    let text = |key: &str| fields[key].as_str().unwrap();
    assert!(text("upload_id").starts_with("uploads-"), "{fields}");
    assert_eq!((text("owner"), text("storage")), ("", "embedded"));
    assert!(fields["seconds"].as_f64().unwrap() < 60.0, "{fields}");
    let number = |key: &str| fields[key].as_u64().unwrap();
    (
        text("name"),
        number("size"),
        number("attempts"),
        text("result"),
    )
}

#[tokio::test]
async fn each_upload_that_ends_has_one_line() {
    let format = ("UPLOAD_GATEWAY_LOG__FORMAT", "json");
    let gateway = Gateway::start(&[format]);
    let mut client = UploadServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let data = bytes(100);
    let file = |name: &str| FileMetadata {
        file_name: name.into(),
        file_size: Some(100),
        ..FileMetadata::default()
    };
    let begin = async |file| {
        let mut stream = Conversation::begin(client.clone()).await;
        stream.send(open_file(file)).await;
        let upload_id = stream.next().await.unwrap().upload_id;
        (stream, upload_id)
    };

    let (_cut, upload_id) = begin(file("später")).await;
    let stream = Conversation::begin(client.clone()).await;
    stream.send(open_known(&upload_id)).await;
    stream.send(chunk(0, &data)).await;
    stream.send(finish()).await;
    stream.end().await.unwrap();
    let again = Conversation::begin(client.clone()).await;
    again.send(open_known(&upload_id)).await;
    again.end().await.unwrap();

    let (wrong, _) = begin(FileMetadata {
        file_id: "AAAAAAAAAAAAAAAAAAAAAA==".into(),
        ..file("wrong")
    })
    .await;
    wrong.send(chunk(0, &data)).await;
    wrong.send(finish()).await;
    wrong.end().await.unwrap_err();

    let (_open, upload_id) = begin(file("removed")).await;
    for _ in 0..2 {
        let upload_id = upload_id.clone();
        client
            .delete_upload(DeleteUploadRequest { upload_id })
            .await
            .unwrap();
    }

    let directory = TempDir::new().unwrap();
    let signed = directory.path().join("signed");
    fs::write(&signed, &data).unwrap();
    let mut put = binary();
    put.args(["put", "--direct", "--server", &gateway.grpc])
        .arg(&signed);
    assert!(
        tokio::task::spawn_blocking(move || put.status())
            .await
            .unwrap()
            .unwrap()
            .success()
    );

    let log = gateway.stop();
    let ended = ended(&log);
    let shown: Vec<_> = ended.iter().map(shown).collect();
    let expected = [
        ("später", 100, 2, "complete"),
        ("wrong", 100, 1, "digest_mismatch"),
        ("removed", 100, 1, "deleted"),
        ("signed", 100, 1, "complete"),
    ];
    assert_eq!(shown, expected, "{log}");
}

#[tokio::test]
async fn a_call_has_one_request_id_in_its_answer_its_error_and_its_log_lines() {
    let filter = ("UPLOAD_GATEWAY_LOG__FILTER", "info,upload_gateway=debug");
    let format = ("UPLOAD_GATEWAY_LOG__FORMAT", "json");
    let gateway = Gateway::start(&[filter, format]);
    let mut client = UploadServiceClient::connect(gateway.grpc.clone())
        .await
        .unwrap();
    let mut get = async |id: Option<&str>| {
        let mut request = tonic::Request::new(GetUploadRequest {
            upload_id: "uploads-0000000000000000-00000000000000000000000000000000".into(),
        });
        if let Some(id) = id {
            request
                .metadata_mut()
                .insert("x-request-id", id.parse().unwrap());
        }
        let status = client.get_upload(request).await.unwrap_err();
        let detail = status.get_details_request_info().unwrap().request_id;
        let answered = status.metadata().get("x-request-id").unwrap();
        assert_eq!(answered.to_str().unwrap(), detail);
        detail
    };
    assert_eq!(get(Some("mine-1")).await, "mine-1");
    let new = get(None).await;
    assert_ne!(get(Some("not sane")).await, "not sane");

    let request = "GET /api/engine/v2/uploads/no/url HTTP/1.1\r\nHost: localhost\r\n\
                   X-Request-Id: mine-2\r\nConnection: close\r\n\r\n";
    let answer = send_http(&gateway.http, request);
    assert!(answer.contains("\r\nx-request-id: mine-2\r\n"), "{answer}");

    // A stream is received by a task of its own, and fails after its handler has returned.
    for (id, end) in [
        ("mine-3", vec![finish()]),
        ("mine-4", vec![finish(), finish()]),
    ] {
        let begin = [open("a", Some(3)), chunk(0, b"abc")];
        let messages = tokio_stream::iter(begin.into_iter().chain(end));
        let mut request = tonic::Request::new(messages);
        let metadata = request.metadata_mut();
        metadata.insert("x-request-id", id.parse().unwrap());
        let answer = client.upload_with_progress(request).await.unwrap();
        assert_eq!(answer.metadata().get("x-request-id").unwrap(), id);
        let mut progress = answer.into_inner();
        while let Ok(Some(_)) = progress.message().await {}
    }

    let log = gateway.stop();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |id: &str| {
        let is_its = |line: &&Value| line["span"]["request_id"] == id && line["target"] != "audit";
        let lines = lines.iter().filter(is_its);
        let messages = lines.map(|line| line["fields"]["message"].as_str().unwrap());
        messages.collect::<Vec<_>>()
    };
    for id in ["mine-1", "mine-2", &new] {
        assert!(of(id)[0].contains("no upload"), "{id}: {log}");
    }
    assert!(of("mine-3").contains(&"an upload ended"), "{log}");
    assert!(of("mine-4")[0].contains("no message may follow"), "{log}");
}

#[test]
fn the_first_line_has_the_version_and_the_settings_without_secrets() {
    let secret = ("UPLOAD_GATEWAY_EMBEDDED__SECRET_ACCESS_KEY", "hunter2");
    let budget = ("UPLOAD_GATEWAY_LIMITS__MEMORY_BUDGET", "64MiB");
    let format = ("UPLOAD_GATEWAY_LOG__FORMAT", "json");
    let log = Gateway::start(&[secret, budget, format]).stop();
    assert!(!log.contains("hunter2"), "{log}");
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let fields = &first["fields"];
    assert_eq!(fields["message"], "the gateway starts");
    assert_eq!(fields["version"], env!("CARGO_PKG_VERSION"));
    let settings: Value = serde_json::from_str(fields["settings"].as_str().unwrap()).unwrap();
    assert_eq!(settings["limits"]["memory_budget"], "64MiB");
    assert_eq!(settings["embedded"]["secret_access_key"], "[redacted]");
}
