//! What the commands print if no gateway can be called at the address.

use std::{path::Path, process::Output, time::Duration};

use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::common::TestGateway;

/// Every command fails within this time.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn no_server_at_the_address_is_an_error_at_once() {
    let directory = TempDir::new().unwrap();
    fails(
        &directory,
        "http://127.0.0.1:1",
        "no gateway answers at http://127.0.0.1:1; --server or UPLOAD_GATEWAY_SERVER names its address",
    )
    .await;
}

#[tokio::test]
async fn a_silent_server_is_an_error() {
    let directory = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    fails(&directory, &server, "does not speak gRPC").await;
}

#[tokio::test]
async fn the_http_port_is_named() {
    let directory = TempDir::new().unwrap();
    let gateway = TestGateway::start().await;
    fails(&directory, &gateway.http, "is an HTTP port").await;
}

#[tokio::test]
async fn https_on_a_port_without_tls_is_named() {
    let directory = TempDir::new().unwrap();
    let gateway = TestGateway::start().await;
    for server in [&gateway.grpc, &gateway.http] {
        let server = server.replace("http://", "https://");
        fails(&directory, &server, "does not use TLS").await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_and_http_on_a_tls_port_are_named() {
    let directory = TempDir::new().unwrap();
    let port = serve_tls().await;
    let server = format!("https://localhost:{port}");
    fails(&directory, &server, "is not trusted").await;
    let server = format!("http://localhost:{port}");
    fails(&directory, &server, "requires TLS").await;
}

#[tokio::test]
async fn put_waits_for_a_server_that_starts_later() {
    let directory = TempDir::new().unwrap();
    let arguments = ["--wait", "--retry-timeout", "1", "--json"];
    let output = put(&directory, "http://127.0.0.1:1", &arguments).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("no progress for 1 s"), "{errors}");
}

/// Checks that `put`, in both modes, and `ls` fail with `expected`.
async fn fails(directory: &TempDir, server: &str, expected: &str) {
    let listed = command(directory, &["ls", "--server", server]);
    let (streamed, direct, listed) = tokio::join!(
        put(directory, server, &[]),
        put(directory, server, &["--direct"]),
        run(listed)
    );
    for output in [streamed, direct, listed] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(expected), "{server}: {errors}");
        assert!(!errors.contains("retrying"), "{errors}");
    }
}

async fn put(directory: &TempDir, server: &str, arguments: &[&str]) -> Output {
    let path = directory.path().join("a.bin");
    std::fs::write(&path, b"hello").unwrap();
    let mut put = command(directory, &["put", "--server", server]);
    put.arg(path).args(arguments);
    run(put).await
}

async fn run(mut command: Command) -> Output {
    timeout(LIMIT, command.output()).await.unwrap().unwrap()
}

/// The binary, which trusts only an authority that signs nothing.
fn command(directory: &TempDir, arguments: &[&str]) -> Command {
    let authority = directory.path().join("authority.pem");
    write_authority(&authority);
    let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
    command
        .env_clear()
        .env("SSL_CERT_FILE", authority)
        .args(arguments)
        .kill_on_drop(true);
    command
}

fn write_authority(path: &Path) {
    let signed = rcgen::generate_simple_self_signed(["authority".to_owned()]).unwrap();
    std::fs::write(path, signed.cert.pem()).unwrap();
}

/// A gRPC server with a certificate that it signed itself. Returns its port.
async fn serve_tls() -> u16 {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(signed.cert.pem(), signed.signing_key.serialize_pem());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(health)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    port
}
