//! A Redis server that accepts TLS only, with a certificate from an authority made for it.

use std::{fs, path::PathBuf};

use super::{certificates::write_certificates, programs, redis_server, server::Server};

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
