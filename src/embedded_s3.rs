//! An S3 server inside this process, for a gateway without any storage configured.
//!
//! The `s3s` crate checks signatures and speaks the protocol on a loopback port; `storage` keeps parts and objects
//! in plain files and survives SIGKILL at any point. It is spoken to with an ordinary S3 client, so the gateway has no
//! special path for it, and the URLs signed for it work.
//!
//! Where S3 leaves a choice: completing an upload again answers 200 with the same ETag as long as the object is still
//! the one this upload made and the parts named are the same, otherwise `NoSuchUpload`. A download that runs while its
//! object is replaced or deleted breaks off, it never mixes two objects. There is one bucket, and no versions.

mod config;
mod drain;
mod files;
mod list;
mod read;
mod receive;
mod server;
mod service;
mod storage;
mod uploads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

pub use config::EmbeddedS3Config;
use server::Server;
use service::{Keys, Service};
use storage::Storage;

/// A running embedded S3. Dropping it ends it at once, [`EmbeddedS3::stop`] lets running requests finish.
#[derive(Debug)]
pub struct EmbeddedS3 {
    address: SocketAddr,
    server: Server,
}

// === impl EmbeddedS3 ===

impl EmbeddedS3 {
    /// Binds the address, mends what a crash left half-done in the directory, then serves in a background task.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address that is not loopback or an impossible bucket name, `WouldBlock` if another
    /// process uses the directory, `InvalidData` for a damaged state file (named in the message), and whatever
    /// binding or the file system reports.
    pub async fn start(config: EmbeddedS3Config) -> io::Result<Self> {
        config
            .validate()
            .map_err(|invalid| io::Error::new(io::ErrorKind::InvalidInput, invalid))?;
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let directory = config.directory;
        let storage = tokio::task::spawn_blocking(move || Storage::open(directory)).await??;

        let mut builder = S3ServiceBuilder::new(Service::new(Arc::new(storage)));
        let keys = Keys {
            bucket: config.bucket,
            access_key_id: config.access_key_id,
            secret_access_key: config.secret_access_key.expose().into(),
        };
        builder.set_auth(keys.clone());
        builder.set_access(keys);
        let server = Server::start(listener, builder.build());
        Ok(Self { address, server })
    }

    /// The URL S3 clients are pointed at, with path-style addressing and any region: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops accepting, lets running requests finish for at most ten seconds, and returns when the directory is free
    /// for the next user.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}
