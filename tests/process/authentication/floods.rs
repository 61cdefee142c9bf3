//! Clients that begin handshakes, or forge tokens, in large numbers.

use std::{fs, path::Path, process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{net::TcpStream, time::Instant};
use upload_gateway_client::{Client, ConnectOptions, proto::v1::ListUploadsRequest};

use super::{
    guarded::{call, reason},
    key_server::{KeyServer, TOKEN},
    tls::{certificates, connect},
};
use crate::common::{self, Server};

/// How many handshakes are begun and never continued.
const HANDSHAKES: usize = 1_000;

/// How many handshakes there is room for.
const MAX_HANDSHAKES: usize = 2_048;

/// How many tokens are forged, each with a key id of its own.
const FORGED: usize = 10_000;

/// How much more memory the gateway may take, in bytes.
const MORE_MEMORY: u64 = 32 << 20;

/// How often keys are fetched for unknown key ids at most.
const PAUSE: Duration = Duration::from_secs(5);

fn memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kibibytes.unwrap() * 1024
}

fn forged(number: usize) -> (&'static str, String) {
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    let header = part(format!(r#"{{"alg":"ES256","kid":"forged-{number}"}}"#));
    let claims = part(
        r#"{"iss":"https://issuer.example","aud":"uploads","sub":"owner","tenant":"a","exp":9999999999}"#
            .into(),
    );
    let signature = URL_SAFE_NO_PAD.encode([7; 64]);
    (
        "authorization",
        format!("Bearer {header}.{claims}.{signature}"),
    )
}

#[tokio::test]
async fn handshakes_and_forged_tokens_take_little_memory_and_few_fetches() {
    let (Some(python), Some(_)) = (common::python(), common::find("openssl")) else {
        return;
    };
    let (keys, address) = KeyServer::start().await;
    let server = Server::start(|port, directory| {
        certificates(directory, "ca", "server", "IP:127.0.0.1");
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/authentication/rotate.py");
        let made = Command::new(&python)
            .arg(script)
            .arg(directory)
            .arg("1")
            .status();
        assert!(made.unwrap().success());
        keys.publish(fs::read(directory.join("jwks-0.json")).unwrap());
        fs::write(directory.join("cluster-token"), TOKEN).unwrap();
        let path = |name: &str| format!("{:?}", directory.join(name));
        let config = format!(
            "auth = \"required\"\n[tls]\ncert_file = {}\nkey_file = {}\n\
             [[issuer]]\nissuer = \"https://issuer.example\"\naudiences = [\"uploads\"]\ntenant = \"/tenant\"\n\
             jwks_url = \"http://{address}/keys\"\nbearer_token_file = {}\nrefresh_seconds = 3600\n",
            path("server.pem"),
            path("server.key"),
            path("cluster-token"),
        );
        common::serve(&config, port, directory)
    });
    let options = ConnectOptions {
        authorities: Some(fs::read_to_string(server.directory().join("ca.pem")).unwrap()),
        token_file: Some(server.directory().join("token-0")),
        ..ConnectOptions::default()
    };
    let url = format!("https://{}", server.address());
    let honest = async || {
        let client = Client::connect_with(&url, &options).unwrap();
        client.list(ListUploadsRequest::default()).await.unwrap();
    };
    honest().await;
    let (before, fetches, begun) = (memory(&server), keys.fetches(), Instant::now());
    let silent = (0..HANDSHAKES).map(|_| TcpStream::connect(server.address()));
    let silent = futures::future::try_join_all(silent).await.unwrap();
    honest().await;
    let channel = connect(&server, None);
    let list = "/uploadgateway.v1.UploadService/ListUploads";
    for first in (0..FORGED).step_by(100) {
        let calls = (first..first + 100)
            .map(|number| call(&channel, list, Some(forged(number)), Vec::new()));
        for answer in futures::future::join_all(calls).await {
            let status = answer.unwrap_err();
            let reason = reason(&status);
            assert!(
                ["CREDENTIAL_INVALID", "ISSUER_UNAVAILABLE"].contains(&&*reason),
                "{status:?}"
            );
        }
        honest().await;
    }
    let allowed = begun.elapsed().as_secs() / PAUSE.as_secs() + 1;
    let fetched = (keys.fetches() - fetches) as u64;
    assert!(
        (1..=allowed).contains(&fetched),
        "{fetched} fetches, {allowed} allowed"
    );
    let more = memory(&server).saturating_sub(before);
    assert!(more <= MORE_MEMORY, "{} MiB more", more >> 20);
    // Beyond the room for handshakes, those that have waited longest are closed.
    let others = (HANDSHAKES..MAX_HANDSHAKES + 100).map(|_| TcpStream::connect(server.address()));
    let _others = futures::future::try_join_all(others).await.unwrap();
    honest().await;
    let mut closed = 0;
    for connection in &silent[..50] {
        // Readable: it was closed, since the gateway sends nothing.
        let readable = tokio::time::timeout(PAUSE, connection.readable()).await;
        closed += usize::from(readable.is_ok());
    }
    assert_eq!(closed, 50);
}
