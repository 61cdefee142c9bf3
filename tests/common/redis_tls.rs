//! A Redis server that accepts TLS only, with a certificate from an authority made for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{programs, redis_server, server::Server};

/// A Redis server that accepts TLS only.
#[derive(Debug)]
pub struct RedisTls {
    /// `rediss://localhost:PORT`.
    pub url: String,
    /// The certificate of the authority to trust, as PEM.
    pub authority: String,
    /// A file with the same content.
    pub authority_file: PathBuf,
    /// A certificate of that authority for a client, and its key.
    pub client_files: (PathBuf, PathBuf),
    /// The process.
    pub server: Server,
}

/// A server for the caller alone; it requires no client certificate.
pub fn redis_tls() -> Option<RedisTls> {
    start("no")
}

/// A server for the caller alone; it requires a client certificate.
pub fn redis_tls_for_clients_with_certificates() -> Option<RedisTls> {
    start("yes")
}

fn start(authenticate_clients: &str) -> Option<RedisTls> {
    let program = programs::find("redis-server")?;
    let server = Server::start(|port, directory| {
        write_certificates(directory);
        let mut command = redis_server::command(&program, directory);
        command
            .args([
                "--port",
                "0",
                "--tls-auth-clients",
                authenticate_clients,
                "--tls-port",
                &port.to_string(),
            ])
            .args([
                "--tls-cert-file",
                "server.pem",
                "--tls-key-file",
                "server.key",
                "--tls-ca-cert-file",
                "authority.pem",
            ])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .current_dir(directory);
        command
    });
    let authority_file = server.directory().join("authority.pem");
    let authority = fs::read_to_string(&authority_file).unwrap();
    Some(RedisTls {
        url: format!("rediss://localhost:{}", server.port()),
        authority,
        authority_file,
        client_files: (
            server.directory().join("client.pem"),
            server.directory().join("client.key"),
        ),
        server,
    })
}

fn write_certificates(directory: &Path) {
    let mut authority = CertificateParams::default();
    // OpenSSL takes a certificate with the name of its authority for a self-signed one.
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    fs::write(directory.join("authority.pem"), authority.pem()).unwrap();
    let names = [
        (
            "server",
            vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        ),
        ("client", vec!["gateway".to_owned()]),
    ];
    for (name, names) in names {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
