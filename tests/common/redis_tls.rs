//! A Redis server that accepts TLS only, with a certificate from an authority made for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

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
    /// The process.
    pub server: Server,
}

/// A server for the caller alone; it requires no client certificate.
pub fn redis_tls() -> Option<RedisTls> {
    let program = programs::find("redis-server")?;
    let server = Server::start(|port, directory| {
        write_certificates(directory);
        let mut command = redis_server::command(&program, directory);
        command
            .args([
                "--port",
                "0",
                "--tls-auth-clients",
                "no",
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
        server,
    })
}

fn write_certificates(directory: &Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    fs::write(directory.join("authority.pem"), authority.pem()).unwrap();
    fs::write(directory.join("server.pem"), certificate.pem()).unwrap();
    fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
}
