//! TLS, client certificates and API keys.

use std::{fs, path::Path, process::Command};

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use upload_gateway_client::{Client, ConnectOptions, proto::v1::ListUploadsRequest};

use super::guarded::{call, reason};
use crate::common::{self, Server, until};

/// Runs openssl in a directory.
fn openssl(directory: &Path, arguments: &str) {
    let program = common::find("openssl").unwrap();
    let words = arguments.split_whitespace();
    let output = Command::new(program)
        .args(words)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes an authority `NAME.pem`, and a certificate that it issues for this name.
pub(super) fn certificates(directory: &Path, authority: &str, name: &str, alternative: &str) {
    if !directory.join(format!("{authority}.pem")).exists() {
        openssl(
            directory,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={authority} \
             -keyout {authority}.key -out {authority}.pem"
            ),
        );
    }
    openssl(
        directory,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
         -addext subjectAltName={alternative} -keyout {name}.key -out {name}.csr"
        ),
    );
    openssl(
        directory,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 \
         -copy_extensions copyall -out {name}.pem"
        ),
    );
}

/// A gateway that accepts certificates of `clients.pem`, and the API key in `web.key`.
fn tls_gateway() -> Server {
    Server::start(|port, directory| {
        certificates(directory, "ca", "server", "DNS:localhost,IP:127.0.0.1");
        for (authority, name, domain) in [
            ("clients", "signage", "example.org"),
            ("clients", "stranger", "other.org"),
            ("others", "impostor", "example.org"),
        ] {
            let id = format!("URI:spiffe://{domain}/signage");
            certificates(directory, authority, name, &id);
        }
        let made = common::binary()
            .args([
                "api-key",
                "--id",
                "web",
                "--tenant",
                "b",
                "--subject",
                "web",
            ])
            .output()
            .unwrap();
        fs::write(directory.join("web.key"), made.stdout).unwrap();
        let table = String::from_utf8(made.stderr).unwrap();
        let path = |name: &str| format!("{:?}", directory.join(name));
        let config = format!(
            "auth = \"required\"\n[tls]\ncert_file = {}\nkey_file = {}\nclient_ca_file = {}\nclient_auth = \"optional\"\n\
             [[client_certificate]]\nca_file = {}\nspiffe_trust_domain = \"example.org\"\ntenant = \"a\"\n{table}",
            path("server.pem"),
            path("server.key"),
            path("others.pem"),
            path("clients.pem"),
        );
        common::serve(&config, port, directory)
    })
}

fn read(server: &Server, name: &str) -> String {
    fs::read_to_string(server.directory().join(name)).unwrap()
}

/// A new connection, with a client certificate.
pub(super) fn connect(server: &Server, client: Option<&str>) -> Channel {
    let authority = Certificate::from_pem(read(server, "ca.pem"));
    let mut tls = ClientTlsConfig::new().ca_certificate(authority);
    if let Some(name) = client {
        let [certificate, key] = ["pem", "key"].map(|end| read(server, &format!("{name}.{end}")));
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address())).unwrap();
    endpoint.tls_config(tls).unwrap().connect_lazy()
}

#[tokio::test]
async fn a_client_certificate_stands_for_its_principal() {
    if common::find("openssl").is_none() {
        return;
    }
    let server = tls_gateway();
    let list = "/uploadgateway.v1.UploadService/ListUploads";
    for (client, expected) in [
        (None, "CREDENTIAL_MISSING"),
        (Some("signage"), "OK"),
        (Some("stranger"), "CREDENTIAL_INVALID"),
        // Its authority is accepted for connections, but not for this trust domain.
        (Some("impostor"), "CREDENTIAL_INVALID"),
    ] {
        let answer = call(&connect(&server, client), list, None, Vec::new()).await;
        let outcome = answer.map_or_else(|status| reason(&status), |_| "OK".into());
        assert_eq!(outcome, expected, "{client:?}");
    }
}

#[tokio::test]
async fn an_api_key_decides_beside_a_certificate() {
    if common::find("openssl").is_none() {
        return;
    }
    let server = tls_gateway();
    let options = ConnectOptions {
        authorities: Some(read(&server, "ca.pem")),
        certificate: Some(read(&server, "stranger.pem")),
        key: Some(read(&server, "stranger.key")),
        api_key_file: Some(server.directory().join("web.key")),
        ..ConnectOptions::default()
    };
    let client = Client::connect_with(&format!("https://{}", server.address()), &options).unwrap();
    client.check_connection().await.unwrap();
    let list = async || client.list(ListUploadsRequest::default()).await;
    list().await.unwrap();
    // The file is read for each call.
    let wrong = format!("{}x", read(&server, "web.key").trim());
    fs::write(server.directory().join("web.key"), wrong).unwrap();
    let refused = list().await.unwrap_err();
    assert!(refused.to_string().contains("not accepted"), "{refused}");
}

#[tokio::test]
async fn certificates_are_replaced_while_the_gateway_runs() {
    if common::find("openssl").is_none() {
        return;
    }
    let server = tls_gateway();
    let directory = server.directory().to_owned();
    let list = "/uploadgateway.v1.UploadService/ListUploads";
    let answers = async |channel: &Channel| {
        let answer = call(channel, list, None, Vec::new()).await;
        answer.is_err_and(|status| reason(&status) == "CREDENTIAL_MISSING")
    };
    let before = connect(&server, None);
    assert!(answers(&before).await);
    // Another authority issues the next certificate. Half of a pair is not used.
    let half = tempfile::tempdir().unwrap();
    certificates(half.path(), "ca", "server", "DNS:localhost,IP:127.0.0.1");
    fs::copy(half.path().join("server.pem"), directory.join("server.pem")).unwrap();
    until("the pair that does not fit is logged", async || {
        server.log().contains("the changed files are not used")
    })
    .await;
    assert!(answers(&connect(&server, None)).await);
    fs::copy(half.path().join("server.key"), directory.join("server.key")).unwrap();
    fs::copy(half.path().join("ca.pem"), directory.join("ca.pem")).unwrap();
    until("new connections get the new certificate", async || {
        answers(&connect(&server, None)).await
    })
    .await;
    // A running connection keeps its own.
    assert!(answers(&before).await);
}
