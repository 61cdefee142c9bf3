//! Text from callers writes no line of its own, in the log of the gateway and in the errors of the client commands.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Command, Stdio},
};

use upload_gateway_client::proto::v1::{
    GetUploadRequest, upload_service_client::UploadServiceClient,
};

use crate::common::binary;

const FORGED: &str = "2026-01-01T00:00:00.000000Z ERROR forged";

/// The answer to an HTTP request for an upload with such an id.
fn call_http(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let id = format!("x%0A{}%0D%1B[31m", FORGED.replace(' ', "%20"));
    let request = format!(
        "GET /api/engine/v2/uploads/{id}/url HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn an_upload_id_with_line_breaks_stays_in_its_line() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut gateway = binary()
        .args(["serve", "--http-listen", "127.0.0.1:0"])
        .args(["--grpc-listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path())
        .env("UPLOAD_GATEWAY_LOG__FILTER", "info,upload_gateway=debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(gateway.stdout.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("embedded s3 at ") {
        assert_ne!(output.read_line(&mut lines).unwrap(), 0, "{lines}");
    }
    let address = |name: &str| {
        let begin = format!("{name} listening on http://");
        let line = lines.lines().find_map(|line| line.strip_prefix(&begin));
        line.unwrap().to_owned()
    };

    let upload_id = format!("x\n{FORGED}\r\u{1b}[31m\u{202e}");
    let grpc = format!("http://{}", address("grpc"));
    let mut client = UploadServiceClient::connect(grpc.clone()).await.unwrap();
    let request = GetUploadRequest {
        upload_id: upload_id.clone(),
    };
    let refused = client.get_upload(request).await.unwrap_err();
    assert!(!refused.message().contains(char::is_control), "{refused:?}");
    assert!(refused.message().contains("x\\n2026"), "{refused:?}");
    drop(client);
    let answer = call_http(&address("http"));
    assert!(answer.contains("x\\\\n2026"), "{answer}");

    let mut status = binary();
    status
        .args(["status", &upload_id])
        .env("UPLOAD_GATEWAY_SERVER", &grpc);
    let shown = String::from_utf8(status.output().unwrap().stderr).unwrap();
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(!shown.trim_end().contains(char::is_control), "{shown:?}");

    let process = gateway.id().to_string();
    assert!(
        Command::new("kill")
            .arg(process)
            .status()
            .unwrap()
            .success()
    );
    let mut log = String::new();
    let mut errors = gateway.stderr.take().unwrap();
    errors.read_to_string(&mut log).unwrap();
    gateway.wait().unwrap();
    assert!(log.matches("forged").count() >= 3, "{log}");
    for line in log.lines() {
        assert!(line.starts_with("20") && !line.starts_with(FORGED), "{log}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
