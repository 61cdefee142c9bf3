//! The real binary as a server process.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use super::{RedisBackend, S3Backend, server::Server};

/// A gateway in a process of its own, with this configuration; it serves gRPC on the server's port.
pub fn gateway_process(toml: &str) -> Server {
    Server::start(|port, directory| serve(toml, port, directory))
}

/// The command of a gateway with this configuration, which serves gRPC on `port` and keeps its files in `directory`.
pub fn serve(toml: &str, port: u16, directory: &Path) -> Command {
    let config = directory.join("config.toml");
    fs::write(&config, toml).unwrap();
    let mut command = binary();
    command
        .args(["serve", "--http-listen", "127.0.0.1:0", "--grpc-listen"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("--data-dir")
        .arg(directory.join("data"))
        .arg("--config")
        .arg(config);
    command
}

/// The binary, without the environment variables of the caller.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upload-gateway"));
    // Not the state of the user who runs the tests.
    command
        .env_clear()
        .env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

impl Server {
    /// Its listen address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port()))
    }
}

impl S3Backend {
    /// The bucket as the only storage of a configuration.
    pub fn toml(&self) -> String {
        format!(
            "[[storage]]\nid = \"media\"\nkind = \"s3\"\nprofile = \"compatible\"\nbucket = \"{}\"\nregion = \"{}\"\n\
             endpoint = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
            self.bucket, self.region, self.endpoint, self.access_key, self.secret_key
        )
    }
}

impl RedisBackend {
    /// The database as the state store of a configuration; must stand before the tables.
    pub fn toml(&self) -> String {
        format!("redis_url = \"{}\"\n", self.url)
    }
}
