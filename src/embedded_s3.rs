//! An S3 server inside this process, for a gateway without a configured storage.
//!
//! The `s3s` crate implements the protocol and checks signatures, on a loopback port. `storage` keeps parts and objects
//! in plain files and survives SIGKILL at any point. The gateway uses it through the S3 adapter like any other store,
//! and its presigned URLs work.
//!
//! What S3 leaves open: a repeated CompleteMultipartUpload returns 200 with the same ETag while the object is still the
//! one that this upload made and the call names the same parts, otherwise `NoSuchUpload`. A download whose object is
//! replaced or deleted fails; it never mixes two objects. There is one bucket, without versions. Its CORS rule is that of the
//! configuration; browsers may read the entity tag.
//!
//! Of the checksums it knows CRC64NVME, of the type `FULL_OBJECT`: that of an object that is put, of a part, and of the
//! whole object when it is completed are compared, and lists and reads return them. As in S3, a part names it only if
//! its upload was created with it. Such an upload accepts parts without it as well, and computes it.

mod access;
mod checksum;
mod config;
mod drain;
mod failure;
mod files;
mod list;
mod part_crc;
mod read;
mod receive;
mod server;
mod service;
mod storage;
mod uploads;
mod values;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

use access::Keys;
pub use config::EmbeddedS3Config;
use server::Server;
use service::Service;
use storage::Storage;

/// A running embedded S3. Dropping it stops it at once; [`EmbeddedS3::stop`] lets running requests finish.
///
/// ```no_run
/// # use upload_gateway::embedded_s3::{EmbeddedS3, EmbeddedS3Config};
/// # async fn run() -> std::io::Result<()> {
/// let server = EmbeddedS3::start(EmbeddedS3Config {
///     directory: "data/blobs".into(),
///     ..EmbeddedS3Config::default()
/// })
/// .await?;
/// println!("S3 at {}", server.endpoint());
/// server.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EmbeddedS3 {
    address: SocketAddr,
    server: Server,
}

// === impl EmbeddedS3 ===

impl EmbeddedS3 {
    /// Binds the address, completes or removes what a crash left incomplete in the directory, then serves in a
    /// background task.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address that is not loopback or an invalid bucket name, `WouldBlock` if another process
    /// uses the directory, `InvalidData` for a damaged file or a directory whose format this build does not read (both
    /// named in the message), and any error of binding and of the file system.
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
        let server = Server::start(listener, builder.build(), &config.cors_origins);
        Ok(Self { address, server })
    }

    /// The endpoint URL for S3 clients, `http://127.0.0.1:PORT`. They must use path-style addressing; any region works.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops accepting connections, gives running requests up to ten seconds to finish, and returns when another
    /// process can use the directory.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}
