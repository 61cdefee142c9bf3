//! `doctor` with AWS: the hosts of AWS are those of a proxy, which answers for them.

use std::{convert::Infallible, fs, process::Stdio};

use axum::{
    body::Body,
    http::{Request, Response, header::HOST, request::Parts},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::stand_in::{acceptor, answer, refusal};
use crate::common::{binary, write_certificates_for};

const IDENTITY: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
    <Arn>arn:aws:iam::123456789012:user/gateway</Arn><UserId>A</UserId><Account>123456789012</Account>\
    </GetCallerIdentityResult></GetCallerIdentityResponse>";

/// The answer to a request to the host.
type Answer = fn(host: &str, &Parts) -> Response<Body>;

/// What `doctor` prints about a bucket in `eu-west-1`, if AWS answers so.
async fn doctor(answer: Answer) -> String {
    let directory = TempDir::new().unwrap();
    let hosts = [
        "s3.eu-west-1.amazonaws.com",
        "media.s3.eu-west-1.amazonaws.com",
        "sts.eu-west-1.amazonaws.com",
    ];
    write_certificates_for(directory.path(), &hosts);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let acceptor = acceptor(directory.path());
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(tunnel(stream, acceptor.clone(), answer));
        }
    });
    let config = directory.path().join("gateway.toml");
    let toml = format!(
        "[[storage]]\nid = \"media\"\nkind = \"s3\"\nbucket = \"media\"\nregion = \"eu-west-1\"\naccess_key_id = \"a\"\n\
         secret_access_key = \"b\"\nca_file = \"{}\"\n",
        directory.path().join("authority.pem").display()
    );
    fs::write(&config, toml).unwrap();
    let output = tokio::process::Command::from(binary())
        .env("HTTPS_PROXY", &proxy)
        .args(["doctor", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .stdin(Stdio::null())
        .output();
    let output = output.await.unwrap();
    serving.abort();
    String::from_utf8(output.stdout).unwrap()
}

/// Answers a `CONNECT`, and then requests in TLS.
async fn tunnel(mut stream: TcpStream, acceptor: TlsAcceptor, answer: Answer) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
        let (head, _) = request.into_parts();
        let host = head.headers[HOST].to_str().unwrap();
        Ok::<_, Infallible>(answer(host, &head))
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

#[tokio::test]
async fn the_identity_of_the_credentials_is_named() {
    let report = doctor(
        |host, head| match (host.starts_with("sts."), head.method.as_str()) {
            (true, _) => answer(200, IDENTITY),
            (false, "HEAD") => answer(200, ""),
            (false, _) => refusal(403, "AccessDenied"),
        },
    );
    let report = report.await;
    let named =
        "ok    storage media: the credentials are those of arn:aws:iam::123456789012:user/gateway";
    assert!(report.contains(named), "{report}");

    let report = doctor(
        |host, head| match (host.starts_with("sts."), head.method.as_str()) {
            (false, "HEAD") => answer(200, ""),
            _ => refusal(403, "AccessDenied"),
        },
    );
    let report = report.await;
    let hidden = "skip  storage media: identity of the credentials: not checked: the security token service of AWS";
    assert!(report.contains(hidden), "{report}");
}

#[tokio::test]
async fn a_bucket_in_another_region_gives_the_region_to_set() {
    let report = doctor(|_, _| {
        let mut redirect = refusal(301, "PermanentRedirect");
        let region = "eu-central-1".parse().unwrap();
        redirect.headers_mut().insert("x-amz-bucket-region", region);
        redirect
    });
    let report = report.await;
    let fix = "      set storage.media.region = \"eu-central-1\"";
    assert!(report.contains(fix), "{report}");
}
