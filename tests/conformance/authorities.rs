//! Stores whose certificates are of a private authority, with both SDKs.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;
use upload_gateway::blobs::{
    azure::{AzureConfig, AzureStore},
    s3::{S3Config, S3Store},
};
use upload_gateway_core::{blobs::BlobStore, error::Result};

use crate::common::write_certificates;

#[derive(Debug, Clone, Copy)]
enum Sdk {
    S3,
    Azure,
}

impl Sdk {
    async fn connect(self, endpoint: &str, ca_file: Option<PathBuf>) -> Result<Arc<dyn BlobStore>> {
        let endpoint = Some(endpoint.parse().unwrap());
        Ok(match self {
            Self::S3 => Arc::new(
                S3Store::connect(S3Config {
                    endpoint,
                    ca_file,
                    access_key_id: Some("key".into()),
                    secret_access_key: Some("secret".into()),
                    ..S3Config::new("bucket")
                })
                .await?,
            ),
            Self::Azure => Arc::new(AzureStore::connect(AzureConfig {
                endpoint,
                ca_file,
                account_key: Some("a2V5".into()),
                ..AzureConfig::new("account", "container")
            })?),
        })
    }
}

/// A server with the certificate in `directory` that accepts every request. Each has a connection of its own.
fn serve(directory: &Path) -> String {
    let chain = CertificateDer::from_pem_file(directory.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that does not trust the server ends the handshake.
            let _ = answer(stream.unwrap(), Arc::clone(&config));
        }
    });
    endpoint
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    stream.conn.send_close_notify();
    stream.flush()
}

async fn is_trusted_with_its_authority_only(sdk: Sdk) {
    let (directory, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_certificates(directory.path());
    write_certificates(other.path());
    let endpoint = serve(directory.path());
    let authority = |directory: &TempDir| Some(directory.path().join("authority.pem"));
    for (ca_file, is_trusted) in [
        (None, false),
        (authority(&other), false),
        (authority(&directory), true),
    ] {
        let store = sdk.connect(&endpoint, ca_file).await.unwrap();
        let deleted = store.delete("key").await;
        assert_eq!(deleted.is_ok(), is_trusted, "{deleted:?}");
        if let Err(error) = deleted {
            let cause = format!("{error:?}").to_lowercase();
            assert!(cause.contains("certificate"), "{cause}");
        }
    }
}

async fn a_changed_file_is_read_again(sdk: Sdk) {
    let (directory, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_certificates(directory.path());
    write_certificates(other.path());
    let endpoint = serve(directory.path());
    let authority = directory.path().join("authority.pem");
    let file = directory.path().join("ca.pem");
    fs::copy(other.path().join("authority.pem"), &file).unwrap();
    let store = sdk.connect(&endpoint, Some(file.clone())).await.unwrap();
    store.delete("key").await.unwrap_err();

    fs::copy(&authority, &file).unwrap();
    store.delete("key").await.unwrap();
    // A file that cannot be used changes nothing.
    fs::write(&file, "being replaced").unwrap();
    store.delete("key").await.unwrap();
    fs::remove_file(&file).unwrap();
    store.delete("key").await.unwrap();
    sdk.connect(&endpoint, Some(file)).await.unwrap_err();
}

for_both_sdks! {
    is_trusted_with_its_authority_only
    a_changed_file_is_read_again
}
