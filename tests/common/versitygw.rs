//! A strict S3 server: versitygw, which checks signatures, Content-MD5, part sizes and ETags.

use std::{
    env,
    process::Command,
    sync::{Arc, Weak},
};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};

use super::{
    programs,
    server::{self, Server, Shared, unique_name},
};

// The same in tests/backends/servers.sh.
const ACCESS_KEY: &str = "test-access-key";
const SECRET_KEY: &str = "test-secret-key";

/// A new, empty bucket.
#[derive(Debug, Clone)]
pub struct S3Backend {
    /// `http://127.0.0.1:PORT`, for path-style requests.
    pub endpoint: String,
    /// The region that signatures must name.
    pub region: &'static str,
    /// Access key id of the bucket's owner.
    pub access_key: &'static str,
    /// Secret access key of the bucket's owner.
    pub secret_key: &'static str,
    /// The bucket, which exists.
    pub bucket: String,
    server: Option<Arc<Server>>,
}

/// A bucket of its own for each caller, on the shared server.
pub async fn s3() -> Option<S3Backend> {
    static SHARED: Shared = Shared::new(Weak::new());
    if let Ok(endpoint) = env::var("TEST_S3_ENDPOINT") {
        return Some(S3Backend::create(endpoint, None).await);
    }
    let server = server::shared(&SHARED, start)?;
    Some(S3Backend::create(endpoint(&server), Some(server)).await)
}

/// A server for the caller alone, with a bucket. Its files survive [`Server::restart`].
pub async fn private_s3() -> Option<(Server, S3Backend)> {
    let server = start()?;
    let backend = S3Backend::create(endpoint(&server), None).await;
    Some((server, backend))
}

impl S3Backend {
    /// A client with the owner's keys, to inspect what the gateway stored.
    pub fn client(&self) -> aws_sdk_s3::Client {
        let configuration = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::from_static(self.region))
            .credentials_provider(Credentials::from_keys(
                self.access_key,
                self.secret_key,
                None,
            ))
            .force_path_style(true)
            .http_client(super::sdk_http_client())
            .build();
        aws_sdk_s3::Client::from_conf(configuration)
    }

    async fn create(endpoint: String, server: Option<Arc<Server>>) -> Self {
        let backend = Self {
            endpoint,
            region: "us-east-1",
            access_key: ACCESS_KEY,
            secret_key: SECRET_KEY,
            bucket: unique_name(),
            server,
        };
        backend
            .client()
            .create_bucket()
            .bucket(&backend.bucket)
            .send()
            .await
            .unwrap();
        backend
    }
}

fn start() -> Option<Server> {
    let program = programs::find("versitygw")?;
    Some(Server::start(|port, directory| {
        let mut command = Command::new(&program);
        command
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY);
        command
            .args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "posix"])
            .arg(directory);
        command
    }))
}

fn endpoint(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port())
}
