//! The two stores.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
};
use axum::{
    extract::Request,
    middleware::{self, Next},
};
use futures::{StreamExt, stream};

use crate::{
    Result,
    common::{self, S3Backend, Server},
    discard,
};

/// How many objects are deleted at once.
const DELETIONS_AT_ONCE: usize = 8;

/// A bucket on loopback.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) bucket: String,
    endpoint: String,
    access_key: &'static str,
    secret_key: &'static str,
    requests: Option<Arc<AtomicU64>>,
    connections: Option<Arc<AtomicU64>>,
    _server: Option<Server>,
}

impl Store {
    /// An S3 server that checks everything.
    pub(crate) fn strict(server: Server, backend: S3Backend) -> Self {
        Self {
            name: "versitygw",
            bucket: backend.bucket,
            endpoint: backend.endpoint,
            access_key: backend.access_key,
            secret_key: backend.secret_key,
            requests: None,
            connections: None,
            _server: Some(server),
        }
    }

    /// An S3 server in this process that checks nothing and keeps nothing.
    pub(crate) async fn discarding() -> Result<Self> {
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        let count = move |request: Request, next: Next| {
            counter.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        };
        let connections = Arc::new(AtomicU64::new(0));
        let store = discard::store().layer(middleware::from_fn(count));
        Ok(Self {
            name: "discarding",
            bucket: "discarded".to_owned(),
            endpoint: discard::serve(store, Arc::clone(&connections)).await?,
            access_key: "any",
            secret_key: "anything",
            requests: Some(requests),
            connections: Some(connections),
            _server: None,
        })
    }

    /// The SDK's defaults, except for the endpoint.
    pub(crate) fn client(&self) -> Client {
        let credentials = Credentials::from_keys(self.access_key, self.secret_key, None);
        let configuration = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::from_static("us-east-1"))
            .credentials_provider(credentials)
            .force_path_style(true)
            .http_client(common::sdk_http_client())
            .build();
        Client::from_conf(configuration)
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The id and the secret of the key.
    pub(crate) fn credentials(&self) -> [&str; 2] {
        [self.access_key, self.secret_key]
    }

    /// How many requests it has received. `None`: it does not count them.
    pub(crate) fn requests(&self) -> Option<u64> {
        Some(self.requests.as_ref()?.load(Ordering::Relaxed))
    }

    /// How many connections it has accepted. `None`: it does not count them.
    pub(crate) fn connections(&self) -> Option<u64> {
        Some(self.connections.as_ref()?.load(Ordering::Relaxed))
    }

    /// Deletes the objects, so that the next case has room.
    pub(crate) async fn delete(&self, keys: Vec<String>) -> Result<()> {
        let client = self.client();
        let deletions = keys.into_iter().map(|key| {
            let request = client.delete_object().bucket(&self.bucket).key(key);
            request.send()
        });
        let mut deleted = stream::iter(deletions).buffer_unordered(DELETIONS_AT_ONCE);
        while let Some(deletion) = deleted.next().await {
            deletion?;
        }
        Ok(())
    }

    /// A gateway's configuration with this store alone.
    pub(crate) fn configuration(&self) -> String {
        let Self {
            name,
            bucket,
            endpoint,
            access_key,
            secret_key,
            ..
        } = self;
        format!(
            "[[storage]]\nid = \"{name}\"\nkind = \"s3\"\nbucket = \"{bucket}\"\nregion = \"us-east-1\"\n\
             endpoint = \"{endpoint}\"\naccess_key_id = \"{access_key}\"\nsecret_access_key = \"{secret_key}\"\n"
        )
    }
}
