//! Where the environment names a proxy, nothing that stays on this machine goes through it.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::common::{binary, bytes};

/// A gateway on its embedded stores; killed when dropped.
struct Gateway {
    child: Child,
    address: String,
}

/// A command with a proxy for everything.
fn command(proxy: &TcpListener, arguments: &[&str]) -> Command {
    let proxy = format!("http://{}", proxy.local_addr().unwrap());
    let mut command = binary();
    command.args(arguments).stdin(Stdio::null());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, &proxy).env(name.to_lowercase(), &proxy);
    }
    command
}

// === impl Gateway ===

impl Gateway {
    fn start(proxy: &TcpListener, data: &str) -> Self {
        let listen = [
            "--http-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "127.0.0.1:0",
        ];
        let mut child = command(
            proxy,
            &[&["serve", "--data-dir", data][..], &listen].concat(),
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("grpc listening on ").unwrap();
        let address = address.to_owned();
        // The rest of the output fits into the pipe, which stays open as long as the reader.
        while !line.starts_with("embedded s3 at ") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0);
        }
        Self { child, address }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_proxy_sees_nothing_of_the_embedded_stores_and_the_demo() {
    // It accepts no connection: a request through it would wait.
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("film.mp4");
    fs::write(&file, bytes(6 << 20)).unwrap();
    let file = file.to_str().unwrap();
    let data = directory.path().join("data");
    let gateway = Gateway::start(&proxy, data.to_str().unwrap());
    let checked = directory.path().join("checked");
    for arguments in [
        &["put", file][..],
        &["put", "--direct", file],
        &["ls"],
        &["doctor", "--data-dir", checked.to_str().unwrap()],
        &["demo"],
    ] {
        let mut command = command(&proxy, arguments);
        command.env("UPLOAD_GATEWAY_SERVER", &gateway.address);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let connection = proxy.accept().map_err(|error| error.kind());
        assert_eq!(
            connection.err(),
            Some(ErrorKind::WouldBlock),
            "{arguments:?}"
        );
    }
}
